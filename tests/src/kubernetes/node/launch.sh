# Makes the file system of a container and becomes its program. Runs in the pod's network and process namespaces, and in
# mount and process namespaces of the container; what is mounted here nobody else sees.
#
# launch ROOT KIND READ_ONLY PRIVILEGED DIRECTORY NUMBER {SOURCE TARGET MODE}... SETPRIV-ARGUMENTS...
#   KIND      `program`: an image with programs in it, and no shell. `machine`: an image with all that this machine has.
#   MODE      `ro` or `rw`.
set -eu
root=$1 kind=$2 read_only=$3 privileged=$4 directory=$5 number=$6
shift 6
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir proc dev sys etc .launch

# Directories of this machine, as they are, to be read.
share() {
    for each in "$@"; do
        if [ -L "$each" ]; then
            cp -P "$each" ".$each"
        elif [ -d "$each" ]; then
            mkdir -p ".$each"
            mount --rbind "$each" ".$each"
            mount -o remount,bind,ro ".$each"
        fi
    done
}

if [ "$kind" = program ]; then
    # Images have programs without shared libraries; tests have them as they were built.
    share /usr/lib /usr/lib64 /lib /lib64
else
    for each in /*; do
        case $each in
            /proc | /dev | /sys | /etc | /tmp | /run | /var | /lost+found) ;;
            *) share "$each" ;;
        esac
    done
    for each in passwd group nsswitch.conf ssl ld.so.cache localtime alternatives mime.types; do
        [ ! -e "/etc/$each" ] || cp -a "/etc/$each" etc/
    done
    mkdir -p -m 1777 tmp
    mkdir -p run var
fi

mount -t proc proc proc
# What a pod's network is set to is not a container's to change.
if [ "$privileged" = no ]; then
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
fi
mount -t sysfs -o ro sysfs sys
for each in null zero full random urandom tty; do
    : >"dev/$each"
    mount --bind "/dev/$each" "dev/$each"
done
ln -s /proc/self/fd dev/fd
mkdir -m 1777 dev/shm

: >.launch/setpriv
mount --bind "$(command -v setpriv)" .launch/setpriv

while [ "$number" -gt 0 ]; do
    number=$((number - 1))
    if [ -d "$1" ]; then
        mkdir -p ".$2"
    else
        mkdir -p ".${2%/*}"
        : >".$2"
    fi
    mount --rbind "$1" ".$2"
    [ "$3" = rw ] || mount -o remount,bind,ro ".$2"
    shift 3
done
[ -d ".$directory" ] || mkdir -p ".$directory"
[ "$read_only" = no ] || mount -o remount,bind,ro .
exec unshare --root="$root" --wd="$directory" /.launch/setpriv "$@"
