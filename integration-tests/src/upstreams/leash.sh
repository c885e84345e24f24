# Holds a broker on a leash: runs $1 (a shell command) in an empty folder of its own, obeys standard input, answers on
# standard output, and lets the broker say what it likes on standard error. The end of standard input, which is also
# the death of whoever holds its other end, kills what runs and takes the folder away: nothing outlives a killed test.
#
#   write NAME LINES    the next LINES lines of input become the file NAME
#   start               runs the command         -> started PID, and ended STATUS whenever it ends
#   signal NAME PID     a negative PID is the group: the broker and all that it started
#   run COMMAND         runs another command     -> done STATUS
set -u
HOME=$(mktemp -d "${TMPDIR:-/tmp}/linkspan-upstream-XXXXXX") || exit 1
export HOME
cd "$HOME" || exit 1
exec 3>&1 1>&2

while read -r order rest; do
  case $order in
    write)
      name=${rest% *} left=${rest##* }
      while [ "$left" -gt 0 ] && IFS= read -r line; do
        printf '%s\n' "$line"
        left=$((left - 1))
      done > "$name"
      ;;
    start)
      (
        setsid sh -c "$1" < /dev/null 3>&- &
        echo $! > pid
        echo "started $!" >&3
        wait $!
        status=$?
        kill -KILL "-$!" 2> /dev/null
        echo "ended $status" >&3
      ) < /dev/null &
      ;;
    signal) kill "-${rest% *}" "${rest#* }" ;;
    run)
      sh -c "$rest" < /dev/null 3>&-
      echo "done $?" >&3
      ;;
  esac
done

[ ! -e pid ] || kill -KILL "-$(cat pid)" 2> /dev/null
wait
cd / && rm -rf "$HOME"
