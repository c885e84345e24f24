# PostgreSQL as Debian packages it: for a ledger that instances share, in tests.
FROM linkspan-stand-in/debian
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
EXPOSE 5432
