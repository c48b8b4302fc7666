#!/bin/sh
# Apache sends a file from its mapping (EnableMMAP), which somebody cuts while a slow client still reads.
cat >httpd.conf <<CONF
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
ServerName localhost
Listen 127.0.0.1:8080
PidFile /srv/httpd.pid
ErrorLog /srv/httpd.log
DocumentRoot /srv/www
User www-data
Group www-data
EnableMMAP on
EnableSendfile off
CONF
apache2 -X -f /srv/httpd.conf &
python3 download.py 8080 /srv/www/release.tar
kill $!
wait $!
