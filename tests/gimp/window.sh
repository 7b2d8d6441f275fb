#!/usr/bin/env bash
# What a person does: window.sh FOLDER, beside GIMP, under xvfb-run. Opens FOLDER/photo.png, goes through both menus,
# dialogs and the search, fills and enlarges with undo and redo, cancels, fails, and starts the server by its button.
# Leaves screenshots and dumps of the layer in FOLDER; window.py takes the dumps.
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
no_window() { ! window "$1"; }
works() { grep -qsa "$GIMP3_DIRECTORY/plug-ins/pconv-inpain[t]/pconv" /proc/[0-9]*/cmdline; } # not this grep itself
rests() { ! works; }
ask() { # runs a part of window.py in the running GIMP
    rm -f "$folder/done"
    gimp -b "FOLDER='$folder';WHAT='$1';exec(open('$here/window.py').read())" --batch-interpreter python-fu-eval &
    wait_for 60 test -e "$folder/done"
}
shot() { xdotool mousemove 5 895; sleep 0.7; import -window root "$folder/$1.png"; } # no tooltip in the way
activate() { wait_for 30 xdotool windowactivate --sync "$1"; } # a busy window manager may not answer at once
front() { activate "$W"; }
press() { front; xdotool key "$@"; sleep 1; }
open_dialog() { # TYPED TITLE: through the search of actions
    press slash
    xdotool type --delay 40 "$1"
    sleep 1.5
    shot "search $1"
    xdotool key Return
    wait_for 60 window "$2"
    sleep 0.5
}
accept() { activate "$(window "$1" | head -n 1)"; xdotool key alt+o; }

openbox &
wait_for 60 xdotool get_num_desktops # only a running window manager knows
gimp -n -s -d photo.png &
wait_for 120 window photo
W=$(window photo | head -n 1)
front
xdotool windowsize --sync "$W" 1300 850
ask select
ask before
shot photo
press alt+r Up
shot "menu filters"
press Escape Escape
press alt+i
shot "menu image"
press Escape Escape

open_dialog "Partial Conv" "^Partial Conv Inpaint"
xdotool windowmove --sync "$(window "^Partial Conv Inpaint" | head -n 1)" 850 250 # beside the photograph
shot dialog
accept "^Partial Conv Inpaint"
wait_for 120 rests
ask after
shot filled
press ctrl+z
ask undone
press ctrl+y
ask redone
press ctrl+z

open_dialog upscale "^Upscale ×4"
shot "dialog upscale"
xdotool key Escape
wait_for 30 rests
open_dialog x4 "^Upscale ×4"
accept "^Upscale ×4"
wait_for 300 rests
ask enlarged
press ctrl+shift+j
shot enlarged
press ctrl+z
ask shrunk
press ctrl+y
ask "enlarged again"
press ctrl+z
press 1 # as large as before

touch slow # the server takes its time
open_dialog "Partial Conv" "^Partial Conv Inpaint"
accept "^Partial Conv Inpaint"
wait_for 60 test -e busy
sleep 1
shot working
# The button is the last thing in the status bar, at the lower right of the image.
xdotool mousemove 1010 852 click 1
wait_for 30 rests
wait_for 30 test ! -e busy
rm slow
ask cancelled
shot cancelled

ask edit # and then two runs fail
ask stop_server
press ctrl+f # the same again, with the last values
wait_for 60 rests
shot failed
xdotool key Escape
open_dialog "Partial Conv" "^Partial Conv Inpaint"
accept "^Partial Conv Inpaint"
wait_for 60 window "^Partial Conv$"
shot no-server
xdotool key Escape
wait_for 30 rests
ask failed
press ctrl+z # the edit
ask unedited

open_dialog "Partial Conv" "^Partial Conv Inpaint"
accept "^Partial Conv Inpaint"
wait_for 60 window "^Partial Conv$"
activate "$(window "^Partial Conv$" | head -n 1)"
xdotool key Return
wait_for 30 test -e started.json
wait_for 60 rests
ask "filled again"
touch "$folder/finished"
