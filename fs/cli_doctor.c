/* cli_doctor: the verb doctor: what a mount needs, one line each, with the cure. One thread; asks the Hub once. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "auth.h"
#include "http.h"
#include "hub.h"
#include "log.h"
#include "opts.h"

#define ROOM_MIN ((uint64_t)1 << 30)

static bool all_good;

static void good(const char *what, const char *fmt, ...) PRINTF(2, 3);
static void good(const char *what, const char *fmt, ...)
{
	va_list ap;

	printf("ok    %-10s ", what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void bad(const char *what, const char *fmt, ...) PRINTF(2, 3);
static void bad(const char *what, const char *fmt, ...)
{
	va_list ap;

	all_good = false;
	printf("WRONG %-10s ", what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void check_device(void)
{
	if (access("/dev/fuse", F_OK) < 0)
		bad("/dev/fuse", "there is none: modprobe fuse, or give the container the device");
	else if (access("/dev/fuse", R_OK | W_OK) < 0)
		bad("/dev/fuse", "%s: as root, chmod 0666 /dev/fuse", strerror(errno));
	else
		good("/dev/fuse", "can be opened");
}

static void check_fusermount(void)
{
	if (control_have_fusermount())
		good("fusermount", "fusermount3 is there");
	else if (geteuid() == 0)
		good("fusermount", "fusermount3 is missing, which root does not need");
	else
		bad("fusermount", "fusermount3 is missing: install the package fuse3");
}

static void check_disk(const char *what, const char *dir, const char *option)
{
	struct statvfs vfs;
	struct stat st;
	char room[24];
	int r = util_mkdirs(dir);

	if (r < 0 || stat(dir, &st) < 0 || statvfs(dir, &vfs) < 0) {
		bad(what, "%s: %s: name another folder with -o %s=", dir, strerror(r < 0 ? -r : errno), option);
		return;
	}
	cli_size_text((uint64_t)vfs.f_bavail * vfs.f_frsize, room);
	if (st.st_uid != geteuid() || access(dir, W_OK) < 0)
		bad(what, "%s belongs to somebody else: name another folder with -o %s=", dir, option);
	else if ((uint64_t)vfs.f_bavail * vfs.f_frsize < ROOM_MIN)
		bad(what, "%s has only %s left: make room, or name another folder with -o %s=", dir, room, option);
	else
		good(what, "%s, %s free", dir, room);
}

/* What the Hub says of us. */
static void check_hub(struct http *http, struct auth *auth)
{
	CLEANUP(hub_whoami_fini) struct hub_whoami who = {0};
	const struct hub_opts opts = {0};
	struct hub_error err = {0};
	struct hub *hub = NULL;
	int r = hub_new(http, auth, &opts, &hub);

	if (r == 0)
		r = hub_whoami(hub, &who, &err);
	if (r == -EACCES)
		bad("token", "%s", err.text);
	else if (r < 0)
		bad("endpoint", "%s", err.text[0] ? err.text : strerror(-r));
	if (r == 0 && who.name)
		good("endpoint", "%s answers", auth_endpoint(auth));
	if (r == 0 && who.name)
		good("token", "of %s", who.name);
	else if (r == 0)
		bad("token", "none: only public repositories can be read; `hf auth login` or HF_TOKEN");
	hub_free(hub);
}

static void check_network(const struct opts *o)
{
	const struct http_opts opts = {.offline = o->offline || auth_env_offline()};
	struct auth *auth = NULL;
	struct http *http = NULL;
	int r = auth_new(o->endpoint, o->token_path, &auth);

	if (r == -EINVAL)
		bad("endpoint", "it is no URL: it must start with https:// or http:// (HF_ENDPOINT)");
	if (r == 0 && opts.offline)
		good("endpoint", "%s, not asked: offline is wanted (HF_HUB_OFFLINE)", auth_endpoint(auth));
	if (r == 0)
		r = http_new(auth, &opts, &http);
	if (r == 0 && !opts.offline)
		check_hub(http, auth);
	if (http) {
		http_stop(http);
		http_free(http);
	}
	auth_free(auth);
}

int cli_doctor(int argc, char **argv)
{
	AUTO_FREE char *why = NULL;
	struct opts o;

	if (argc != 1)
		return cli_usage(argv[0]);
	if (opts_init(&o, &why) < 0) {
		opts_fini(&o);
		return cli_complain("%s", why ? why : "out of memory");
	}
	if (log_set_levels("err") < 0)
		log_debug("the log says more than is wanted");
	all_good = true;
	check_device();
	check_fusermount();
	check_disk("cache", o.cache_dir, "cache_dir");
	check_disk("staging", o.staging_dir, "staging_dir");
	check_network(&o);
	opts_fini(&o);
	return all_good ? CLI_OK : CLI_FAILED;
}
