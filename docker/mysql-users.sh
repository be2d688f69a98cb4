#!/bin/sh
# MySQL's image runs this once, when it makes the data directory. Migrations own the schema; the API and the workers run
# as a user that may do nothing yet: `migrate` grants it what it needs, table by table, each time.
set -eu
: "${DATABASE_PASSWORD:?must be set in .env}" "${MIGRATION_DATABASE_PASSWORD:?must be set in .env}"
MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql --protocol=socket --user=root <<SQL
CREATE DATABASE IF NOT EXISTS penpay CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'penpay_owner'@'%' IDENTIFIED BY '$MIGRATION_DATABASE_PASSWORD';
GRANT ALL ON penpay.* TO 'penpay_owner'@'%' WITH GRANT OPTION;
CREATE USER 'penpay'@'%' IDENTIFIED BY '$DATABASE_PASSWORD';
SQL
