# shellcheck shell=bash
# Docker hosts for the demonstrations; sourced, never run. The script that sources it is run a second time inside a
# lab: namespaces of its own for processes and mounts, so that the kernel takes everything away when the lab's first
# process ends. Each host has its own network, /run, /var/lib and host name; the rest of the file system is the real
# one. The machine's network, /run and /var/lib are never touched. Control groups are the machine's, below /margay-lab,
# and are removed at the end.

readonly SERVER=172.31.255.254
# Seconds until a program must be ready.
readonly READY_WITHIN=60
# 0: not a single packet may be lost, so the first must not wait for anything that is not there yet.
declare -A MACHINE PROCESS

# Says why Docker cannot run here, and fails; says nothing where it can.
why_no_docker() {
    local program
    for program in dockerd containerd runc docker busybox etcd; do
        type -P "$program" >/dev/null || {
            echo "$program is not installed (scripts/setup installs it)"
            return 1
        }
    done
    [[ $EUID -eq 0 ]] || {
        echo 'it needs root'
        return 1
    }
    unshare --mount --pid --uts --fork true 2>/dev/null || {
        echo 'namespaces cannot be made here'
        return 1
    }
    grep --quiet -w overlay /proc/filesystems || modprobe overlay 2>/dev/null || {
        echo 'the kernel has no overlay file system'
        return 1
    }
}

# lab_enter SCRIPT ARGUMENTS...: runs the script anew as first process of a lab, with LAB as its folder.
lab_enter() {
    local script=$1 folder status=0
    shift
    folder=$(mktemp --directory /tmp/margay-docker.XXXXXX)
    # shellcheck disable=SC2064 # the folder is needed when this function has ended
    trap "rm -rf --one-file-system '$folder'" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    LAB=$folder/private setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
        --mount-proc "$BASH" "$script" "$@" </dev/null || status=$?
    remove_cgroups
    return "$status"
}

# Docker leaves the control groups of its containers' parents.
remove_cgroups() {
    local group
    for group in /sys/fs/cgroup/*/margay-lab /sys/fs/cgroup/margay-lab; do
        [[ -d $group ]] || continue
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

# lab_prepare BIN HOSTS: the lab's file system and its fabric.
lab_prepare() {
    local bin=$1 hosts=$2 number
    mkdir "$LAB"
    # Without --no-mtab, mount would leave a folder in the machine's /run.
    mount --no-mtab -t tmpfs -o mode=700 margay-lab "$LAB"
    mkdir "$LAB"/{bin,scripts,hosts,run,var-lib,image,log}
    mount --no-mtab --bind "$bin" "$LAB/bin"
    mount --no-mtab --bind "$ROOT/scripts" "$LAB/scripts"
    mount --no-mtab --bind "$LAB/run" /run
    mount --no-mtab --bind "$LAB/var-lib" /var/lib
    ENVIRONMENT=("PATH=$LAB/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    trap lab_failed EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    cd /
    "$LAB/scripts/fabric" l2 up lab "$hosts"
    for ((number = 1; number <= hosts; number++)); do
        make_host "$number"
    done
    make_image
}

# Last words of what ran, on failure.
lab_failed() {
    local status=$? log
    [[ $status -ne 0 && $status -lt 128 ]] || return 0
    for log in "$LAB"/log/*.log; do
        [[ -s $log ]] || continue
        printf '\n--- last messages of %s\n' "${log##*/}" >&2
        tail -n 25 "$log" >&2
    done
}

# make_host NUMBER: a mount and a UTS namespace; the process that holds them does nothing else.
make_host() {
    local place=$LAB/hosts/$1
    mkdir -p "$place"/{run/netns,run/docker/plugins,var-lib/margay}
    # shellcheck disable=SC2016 # expanded inside
    unshare --mount --uts --propagation private bash -euc '
        hostname "host-$2"
        mount --no-mtab --bind "$1/run" /run
        mount --no-mtab --bind "$1/var-lib" /var/lib
        : >"$1/made"
        exec sleep infinity
    ' host "$place" "$1" >/dev/null 2>&1 &
    MACHINE[$1]=$!
    until_true "host-$1 has no namespaces" test -e "$place/made"
}

# on NUMBER COMMAND...: runs a command as if on the host; its working folder is /.
on() {
    local number=$1
    shift
    nsenter --mount="/proc/${MACHINE[$number]}/ns/mnt" --uts="/proc/${MACHINE[$number]}/ns/uts" \
        --net="/run/netns/lab-n$number" --wd=/ -- env "${ENVIRONMENT[@]}" "NODENAME=host-$number" "$@"
}

# start NAME NUMBER COMMAND...: runs a program on a host, beside everything else.
start() {
    local name=$1
    shift
    on "$@" >>"$LAB/log/$name.log" 2>&1 &
    PROCESS[$name]=$!
}

# stop NAME: ends it and waits.
stop() {
    kill -TERM "${PROCESS[$1]}" 2>/dev/null || true
    wait "${PROCESS[$1]}" 2>/dev/null || true
}

# until_true COMPLAINT COMMAND...
until_true() {
    local complaint=$1 tries
    shift
    for ((tries = 0; tries < 20 * READY_WITHIN; tries++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.05
    done
    die "$complaint within $READY_WITHIN s"
}

# One etcd for everything: Margay speaks its version 3, Docker's cluster store version 2.
start_etcd() {
    nsenter --net=/run/netns/lab-fab -- etcd --name lab --data-dir "$LAB/etcd" --enable-v2=true \
        --listen-client-urls "http://$SERVER:2379" --advertise-client-urls "http://$SERVER:2379" \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster lab=http://127.0.0.1:2380 --logger zap --log-level error \
        >"$LAB/log/etcd.log" 2>&1 &
    ENVIRONMENT+=(DATASTORE_TYPE=etcdv3 "ETCD_ENDPOINTS=http://$SERVER:2379")
    until_true 'etcd does not answer' env ETCDCTL_API=3 nsenter --net=/run/netns/lab-fab -- \
        etcdctl --endpoints "http://$SERVER:2379" endpoint health
}

# start_agent NUMBER
start_agent() {
    start "agent-$1" "$1" margay-agent --nodename "host-$1" --log-level info
    until_true "the agent of host-$1 is not ready" on "$1" test -S /run/margay/agent.sock
}

# start_plugin NUMBER [OPTIONS...]
start_plugin() {
    local number=$1
    shift
    start "plugin-$number" "$number" margay-docker "$@"
    until_true "margay-docker of host-$number does not listen" \
        on "$number" test -S /run/docker/plugins/margay-ipam.sock
}

# start_docker NUMBER [OPTIONS...]
start_docker() {
    local number=$1
    shift
    start "dockerd-$number" "$number" dockerd --data-root /var/lib/docker --exec-root /run/docker \
        --cgroup-parent "/margay-lab/host-$number" --storage-driver overlay2 --userland-proxy=false "$@"
    until_true "dockerd of host-$number does not answer" on "$number" docker version
}

# A busybox image, made here: nothing is fetched.
make_image() {
    local applet
    mkdir -p "$LAB/image/bin"
    cp "$(type -P busybox)" "$LAB/image/bin/busybox"
    for applet in sh ls cat ip ping ping6 sleep nc wget httpd nslookup arping; do
        ln -s busybox "$LAB/image/bin/$applet"
    done
}

# load_image NUMBER
load_image() {
    tar --directory "$LAB/image" --create . |
        on "$1" docker import --change 'CMD ["/bin/sh"]' - busybox:latest >/dev/null
}

heading() {
    printf '\n=== %s\n' "$*"
}

# show NUMBER COMMAND...: a command as a person types it on a host, and what it says.
show() {
    local number=$1
    shift
    printf '\nhost-%s# %s\n' "$number" "$*"
    on "$number" "$@"
}

# address NUMBER CONTAINER [NETWORK]
address() {
    on "$1" docker inspect --format \
        "{{range \$name, \$net := .NetworkSettings.Networks}}{{if eq \$name \"${3:-net1}\"}}{{\$net.IPAddress}}{{end}}{{end}}" \
        "$2"
}
