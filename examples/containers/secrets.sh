#!/bin/sh
# Makes the secrets, once: those that are there stay as they are.
#
#   examples/containers/secrets.sh [FOLDER]
#
# Only you can enter the folder. The files in it can be read by everybody, because
# compose mounts each as it is, for users of containers whom this machine does not know.
set -eu
folder=${1:-$(dirname "$0")/secrets}
(umask 077 && mkdir -p "$folder")
cd "$folder"

random() { head -c "$1" /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_'; }

# keep writes standard input to a file whole, or not at all.
keep() {
  cat >".$1.new"
  if [ ! -s ".$1.new" ]; then echo "secrets.sh: $1 could not be made" >&2; exit 1; fi
  chmod 444 ".$1.new"
  mv -f ".$1.new" "$1"
}

for name in session_secret postgres_password owner_password app_password; do
  [ -s "$name" ] || random 48 | keep "$name"
done
# PostgreSQL's password files: host, port, database, user, password.
for role in owner app; do
  printf '*:*:*:shop_%s:%s\n' "$role" "$(cat "${role}_password")" | keep "${role}_pgpass"
done
echo "the secrets are in $(pwd)"
