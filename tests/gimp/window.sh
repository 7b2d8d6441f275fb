#!/usr/bin/env bash
# What a person does: window.sh FOLDER, beside GIMP, under xvfb-run. Opens FOLDER/photo.png, fills the selection through
# menu and dialog, undoes and redoes it. Leaves screenshots and dumps of the layer in FOLDER; window.py takes the dumps.
set -eu
folder=$1 here=$(cd "$(dirname "$0")" && pwd)
cd "$folder"

wait_for() { # SECONDS COMMAND...
    for _ in $(seq $((5 * $1))); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "it never happened: ${*:2}" >&2
    import -window root "$folder/stuck.png"
    exit 1
}
window() { xdotool search --onlyvisible --name "$1"; }
works() { grep -qsa "$GIMP3_DIRECTORY/plug-ins/pconv-inpain[t]/pconv" /proc/[0-9]*/cmdline; } # not this grep itself
rests() { ! works; }
ask() { # runs a function of window.py in the running GIMP
    rm -f "$folder/done"
    gimp -b "FOLDER='$folder';WHAT='$1';exec(open('$here/window.py').read())" --batch-interpreter python-fu-eval &
    wait_for 60 test -e "$folder/done"
}
shot() { sleep 0.5; import -window root "$folder/$1.png"; }

openbox &
gimp -n -s -d photo.png &
wait_for 120 window photo
W=$(window photo | head -n 1)
xdotool windowactivate --sync "$W" windowsize --sync "$W" 1300 850
ask select
ask before
xdotool windowactivate --sync "$W" key alt+r
sleep 1
xdotool key Up
shot menu
xdotool key Escape Escape
sleep 0.5
xdotool key slash
sleep 1.5
xdotool type --delay 40 "Partial Conv"
sleep 1.5
xdotool key Return
wait_for 60 window "^Partial Conv Inpaint"
shot dialog
xdotool key alt+o
wait_for 120 rests
ask after
shot filled
xdotool windowactivate --sync "$W" key ctrl+z
sleep 1
ask undone
xdotool key ctrl+y
sleep 1
ask redone
xdotool windowactivate --sync "$W" key ctrl+z
sleep 1
ask stop_server
xdotool windowactivate --sync "$W" key ctrl+f # the same again, with the last values
wait_for 30 works
wait_for 60 rests
sleep 1
shot no-server
ask failed
xdotool key Escape
touch "$folder/finished"
