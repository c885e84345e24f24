# Mosquitto as Debian packages it, to be used as the official image is: the same user, program, ports and folders.
FROM linkspan-stand-in/debian
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends mosquitto mosquitto-clients \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && install -d -o mosquitto -g mosquitto /mosquitto/config /mosquitto/data /mosquitto/log \
 && printf 'listener 1883 127.0.0.1\n' > /mosquitto/config/mosquitto.conf
VOLUME /mosquitto/data
EXPOSE 1883
CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
