# What tests/setup, tests/demo and tests/run share. Sourced by bash, from the project's root.

PYTHON_ENV=build/venv
PYTHON=$PYTHON_ENV/bin/python3
HUB1_ENV=build/venv-hub1
LIBRARIES_ENV=build/venv-libraries
NODE_ENV=build/node
BENCH_ENV=build/venv-bench

die() {
	echo "$*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "this needs root, and there is no sudo: $*"
	fi
}

# /dev/fuse as distributions have it, usable by everybody; close_fuse puts back what it was.
open_fuse() {
	[ -e /dev/fuse ] || die "there is no /dev/fuse: load the module (modprobe fuse), or give the container the device" \
		"(--device /dev/fuse --cap-add SYS_ADMIN)"
	FUSE_MODE=$(stat -c %a /dev/fuse)
	[ "$FUSE_MODE" = 666 ] || as_root chmod 666 /dev/fuse
}

close_fuse() {
	[ "${FUSE_MODE:-666}" = 666 ] || as_root chmod "$FUSE_MODE" /dev/fuse
	FUSE_MODE=666
}

# build_in FOLDER OPTION...: configures it once and compiles.
build_in() {
	local folder=$1
	shift
	[ -f "$folder/build.ninja" ] || meson setup "$folder" "$@"
	meson compile -C "$folder"
}
