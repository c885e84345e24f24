# RabbitMQ as Debian packages it, to be used as the official image is: the same user, program, ports and folders.
FROM linkspan-stand-in/debian
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends rabbitmq-server \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && install -d -o rabbitmq -g rabbitmq /var/log/rabbitmq /etc/rabbitmq/conf.d \
 && printf "loopback_users.guest = false\n" > /etc/rabbitmq/conf.d/10-default-guest-user.conf
# past Debian's wrapper, which insists on being root and writes its log to a file
ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
USER rabbitmq
VOLUME /var/lib/rabbitmq
EXPOSE 5672
CMD ["rabbitmq-server"]
