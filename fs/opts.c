/* opts: THE option table.
 *
 * Not for verbs and their arguments (cli), nor for what SOURCE means (repo). One thread, before any other
 * starts. The tables: `specs` are hugfs's options; `kernel_flags` and `dropped` what mount(8) and fstab pass
 * beside them; `refused` what they may pass and what cannot be done, each with its reason. */
#define LOG_MODULE "opts"

#include "opts.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "auth.h"
#include "log.h"

#define IGNORE_MAX 1024  /* as many patterns as ignore.c takes */
#define VALUE_MAX 8192   /* bytes of one value: a path with every byte escaped */
#define SECONDS_MAX (7 * 24 * 3600)

enum kind {
	KIND_SET,     /* bool: true */
	KIND_CLEAR,   /* bool: false */
	KIND_CHOICE,  /* an enum that counts as row.arg does */
	KIND_SECONDS, /* int64_t milliseconds */
	KIND_SIZE,    /* uint64_t bytes */
	KIND_COUNT,   /* unsigned */
	KIND_UID,
	KIND_GID,
	KIND_MODE,
	KIND_PATH, /* char *, made absolute: the daemon's folder is / */
	KIND_URL,
	KIND_LEVELS,
	KIND_LIST,
	KIND_SYNC, /* commit=sync */
};

struct spec {
	struct opts_row row;
	enum kind kind;
	size_t offset;
	uint64_t min, max;
	bool env_elsewhere; /* auth.c reads the variable */
};

#define AT(field) .offset = offsetof(struct opts, field)

static const struct spec specs[] = {
	{{"ro", 0, NULL, "HUGFS_RO", NULL,
	  "nothing can be written"},
	 KIND_SET, AT(read_only)},
	{{"rw", 0, NULL, NULL, "on",
	  "branches and pull requests can be written, if the token may"},
	 KIND_CLEAR, AT(read_only)},
	{{"allow_other", 0, NULL, "HUGFS_ALLOW_OTHER", NULL,
	  "other users may use the mount, as file modes allow"},
	 KIND_SET, AT(allow_other)},
	{{"uid", 0, "USER", "HUGFS_UID", "the mounting user",
	  "owner of all files"},
	 KIND_UID, AT(uid)},
	{{"gid", 0, "GROUP", "HUGFS_GID", "the mounting user's",
	  "group of all files"},
	 KIND_GID, AT(gid)},
	{{"umask", 0, "OCTAL", "HUGFS_UMASK", "022",
	  "permission bits that files and folders do not have"},
	 KIND_MODE, AT(umask)},
	{{"noxattr", 0, NULL, "HUGFS_NOXATTR", NULL,
	  "no extended attributes, for the speed of ls -l"},
	 KIND_SET, AT(noxattr)},
	{{"nopassthrough", 0, NULL, "HUGFS_NOPASSTHROUGH", NULL,
	  "every read comes to hugfs: the kernel reads no cached file by itself"},
	 KIND_SET, AT(nopassthrough)},
	{{"poll", 0, "SECONDS", "HUGFS_POLL", "30",
	  "age at which a branch in use is asked for its head again"},
	 KIND_SECONDS, AT(poll_ms), .max = SECONDS_MAX * 1000ull},
	{{"commit", 0, "close|sync|fsync|manual", "HUGFS_COMMIT", "close",
	  "what publishes: a quiet period (sync: and close waits for it), fsync, `hugfs commit`"},
	 KIND_CHOICE, AT(commit)},
	{{"sync", 0, NULL, NULL, NULL,
	  "the same as commit=sync"},
	 KIND_SYNC, AT(commit)},
	{{"commit_delay", 0, "SECONDS", "HUGFS_COMMIT_DELAY", "2",
	  "shortest quiet period before a commit"},
	 KIND_SECONDS, AT(commit_delay_ms), .max = SECONDS_MAX * 1000ull},
	{{"commit_interval", 0, "SECONDS", "HUGFS_COMMIT_INTERVAL", NULL,
	  "a commit every so often, instead of after a quiet period"},
	 KIND_SECONDS, AT(commit_interval_ms), .max = SECONDS_MAX * 1000ull},
	{{"open_wait", 0, "SECONDS", "HUGFS_OPEN_WAIT", "60",
	  "how long a file open for writing holds a commit back"},
	 KIND_SECONDS, AT(open_wait_ms), .max = SECONDS_MAX * 1000ull},
	{{"on_conflict", 0, "keep|pr|ours", "HUGFS_ON_CONFLICT", "keep",
	  "what somebody else changed too: stays staged, becomes a pull request, goes on top"},
	 KIND_CHOICE, AT(on_conflict)},
	{{"commit_files", 0, "N", "HUGFS_COMMIT_FILES", "25000",
	  "files of one call; more become several commits on a pull request that is merged"},
	 KIND_COUNT, AT(commit_files), .min = 1, .max = 25000},
	{{"create", 0, "private|public|no", "HUGFS_CREATE", "private",
	  "what mkdir of user/name makes: a repository of that visibility, or nothing"},
	 KIND_CHOICE, AT(create)},
	{{"space_sdk", 0, "static|gradio|docker|streamlit", "HUGFS_SPACE_SDK", "static",
	  "what a space is made with"},
	 KIND_CHOICE, AT(space_sdk)},
	{{"pr", 0, NULL, "HUGFS_PR", NULL,
	  "what is written to main becomes one pull request, updated by each commit"},
	 KIND_SET, AT(pr)},
	{{"fsync", 0, "publish|stage", "HUGFS_FSYNC", "publish",
	  "what fsync waits for: the commit, or the local disk only"},
	 KIND_CHOICE, AT(fsync)},
	{{"fsync_timeout", 0, "SECONDS", "HUGFS_FSYNC_TIMEOUT", "120",
	  "time without progress after which fsync fails"},
	 KIND_SECONDS, AT(fsync_timeout_ms), .min = 1, .max = SECONDS_MAX * 1000ull},
	{{"umount_timeout", 0, "SECONDS", "HUGFS_UMOUNT_TIMEOUT", "30",
	  "longest publishing after an unmount"},
	 KIND_SECONDS, AT(umount_timeout_ms), .max = SECONDS_MAX * 1000ull},
	{{"ignore", 0, "PATTERN", "HUGFS_IGNORE", NULL,
	  "names that are not published (a final slash: folders); !PATTERN takes one off; repeatable"},
	 KIND_LIST, AT(ignore)},
	{{"cache_dir", 0, "DIR", "HUGFS_CACHE_DIR", "$XDG_CACHE_HOME/hugfs",
	  "what was fetched; may be deleted"},
	 KIND_PATH, AT(cache_dir)},
	{{"cache_size", 0, "SIZE", "HUGFS_CACHE_SIZE", "50G",
	  "the cache is kept below this"},
	 KIND_SIZE, AT(cache_size), .min = 4 << 20, .max = UINT64_MAX},
	{{"staging_dir", 0, "DIR", "HUGFS_STAGING_DIR", "$XDG_STATE_HOME/hugfs",
	  "what is not published yet; keep it"},
	 KIND_PATH, AT(staging_dir)},
	{{"endpoint", 0, "URL", "HF_ENDPOINT", "https://huggingface.co",
	  "the Hub"},
	 KIND_URL, AT(endpoint), .env_elsewhere = true},
	{{"token_path", 0, "FILE", "HF_TOKEN_PATH", "that of `hf auth login`",
	  "file that holds the token"},
	 KIND_PATH, AT(token_path), .env_elsewhere = true},
	{{"ca_file", 0, "FILE", "CURL_CA_BUNDLE", "that of the system",
	  "certificate authorities to trust"},
	 KIND_PATH, AT(ca_file)},
	{{"offline", 0, NULL, "HF_HUB_OFFLINE", NULL,
	  "no request at all: what is cached is served"},
	 KIND_SET, AT(offline), .env_elsewhere = true},
	{{"inflight", 0, "SIZE", "HUGFS_INFLIGHT", "256M",
	  "cap of the memory that data in flight takes"},
	 KIND_SIZE, AT(inflight), .min = 4 << 20, .max = 1ull << 40},
	{{"workers", 0, "N", "HUGFS_WORKERS", "8",
	  "data connections at once"},
	 KIND_COUNT, AT(workers), .min = 1, .max = 64},
	{{"log", 0, "LEVEL[,MODULE=LEVEL]", "HUGFS_LOG", "info",
	  "err, warn, info or debug; in -o its commas are written \\,"},
	 KIND_LEVELS, AT(log)},
	{{"foreground", 'f', NULL, NULL, NULL,
	  "stay in the foreground, log to stderr"},
	 KIND_SET, AT(foreground)},
	{{"debug", 'd', NULL, NULL, NULL,
	  "print every request of the kernel; implies -f"},
	 KIND_SET, AT(debug)},
};

/* -- what mount(8) passes -- */

enum { KERNEL_NOEXEC = 1, KERNEL_NOATIME = 2, KERNEL_NODIRATIME = 4 };

static const struct {
	unsigned flag;
	const char *on, *off;
} kernel_flags[] = {
	{KERNEL_NOEXEC, "noexec", "exec"},
	{KERNEL_NOATIME, "noatime", "atime"},
	{KERNEL_NODIRATIME, "nodiratime", "diratime"},
};

/* Means nothing to hugfs. suid and dev come from mount.fuse3 unasked: nothing in a mount has either, and
 * libfuse always mounts nosuid,nodev. */
static const char *const dropped[] = {
	"defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group",
	"nogroup", "nofail", "_netdev", "_rnetdev", "comment", "suid", "nosuid", "dev", "nodev", "async",
	"silent", "loud", "nomand", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime",
	"nolazytime", "noiversion",
};

static const struct {
	const char *name, *why;
} refused[] = {
	{"dirsync",
	 "each change of a name would have to become a commit; leave it out"},
	{"remount",
	 "the options of a mount cannot be changed; unmount it and mount it again"},
};

void opts_kernel(const struct opts *o, char out[OPTS_KERNEL_MAX])
{
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(kernel_flags); i++) {
		if (o->kernel & kernel_flags[i].flag)
			len += (size_t)snprintf(out + len, OPTS_KERNEL_MAX - len, "%s%s", len ? "," : "",
			                        kernel_flags[i].on);
	}
}

/* -- messages -- */

/* What an option is called in a message: it came from -o or from the environment. */
struct label {
	const char *name;
	const char *value; /* NULL: without */
};

static int refuse(char **ret_why, struct label l, const char *why)
{
	char *text;

	if (l.value)
		text = util_printf("option %s=%s: %s", l.name, l.value, why);
	else
		text = util_printf("option %s: %s", l.name, why);
	if (!text)
		return -ENOMEM;
	*ret_why = text;
	return -EINVAL;
}

static int refuse_text(char **ret_why, struct label l, char *why)
{
	AUTO_FREE char *text = why;

	return text ? refuse(ret_why, l, text) : -ENOMEM;
}

static size_t edit_distance(const char *a, const char *b)
{
	unsigned char row[65];
	size_t n = strlen(b);

	if (strlen(a) >= sizeof(row) || n >= sizeof(row))
		return SIZE_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = (unsigned char)j;
	for (size_t i = 0; a[i]; i++) {
		unsigned char diagonal = row[0];

		row[0] = (unsigned char)(i + 1);
		for (size_t j = 0; j < n; j++) {
			unsigned char change = (unsigned char)(diagonal + (a[i] != b[j]));

			diagonal = row[j + 1];
			row[j + 1] = (unsigned char)MIN(change, MIN(diagonal, row[j]) + 1);
		}
	}
	return row[n];
}

static void nearer(const char *name, const char *candidate, size_t *best, const char **ret)
{
	size_t d = edit_distance(name, candidate);

	if (d < *best) {
		*best = d;
		*ret = candidate;
	}
}

static int refuse_unknown(char **ret_why, const char *name)
{
	size_t best = strlen(name) / 3 + 2; /* more mistakes than this are another word */
	const char *near = NULL;
	char *text;

	for (size_t i = 0; i < ARRAY_LEN(specs); i++)
		nearer(name, specs[i].row.name, &best, &near);
	for (size_t i = 0; i < ARRAY_LEN(kernel_flags); i++)
		nearer(name, kernel_flags[i].on, &best, &near);
	for (size_t i = 0; i < ARRAY_LEN(dropped); i++)
		nearer(name, dropped[i], &best, &near);
	if (near)
		text = util_printf("unknown option %s: did you mean %s?", name, near);
	else
		text = util_printf("unknown option %s; `hugfs --help` lists all", name);
	if (!text)
		return -ENOMEM;
	*ret_why = text;
	return -EINVAL;
}

/* -- values -- */

static int set_choice(const struct spec *s, const char *value, int *ret)
{
	int i = 0;

	for (const char *word = s->row.arg;; i++) {
		size_t n = strcspn(word, "|");

		if (strlen(value) == n && memcmp(word, value, n) == 0) {
			*ret = i;
			return 0;
		}
		if (!word[n])
			return -EINVAL;
		word += n + 1;
	}
}

/* "2", "0.5" -> milliseconds; what is below one is cut. */
static int parse_seconds(const char *value, uint64_t *ret_ms)
{
	uint64_t ms = 0, unit = 100;
	const char *p = value;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		ms = ms * 10 + (uint64_t)(*p - '0') * 1000;
		if (ms > SECONDS_MAX * 1000ull)
			return -ERANGE;
	}
	if (*p == '.') {
		for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
			ms += (uint64_t)(*p - '0') * unit;
		if (p[-1] == '.')
			return -EINVAL;
	}
	if (*p)
		return -EINVAL;
	*ret_ms = ms;
	return 0;
}

/* Digits of `base` only, at most `max`. */
static int parse_number(const char *value, unsigned base, uint64_t max, uint64_t *ret)
{
	uint64_t n = 0;

	if (!*value)
		return -EINVAL;
	for (; *value; value++) {
		if (*value < '0' || *value >= (char)('0' + base))
			return -EINVAL;
		n = n * base + (uint64_t)(*value - '0');
		if (n > max)
			return -ERANGE;
	}
	*ret = n;
	return 0;
}

static int parse_user(const char *value, bool group, uint64_t *ret)
{
	struct passwd pw, *user = NULL;
	struct group gr, *grp = NULL;
	char text[16384];

	if (*value >= '0' && *value <= '9')
		return parse_number(value, 10, UINT32_MAX - 1, ret); /* the last means "none" */
	if (group) {
		if (getgrnam_r(value, &gr, text, sizeof(text), &grp) != 0 || !grp)
			return -EINVAL;
		*ret = grp->gr_gid;
	} else {
		if (getpwnam_r(value, &pw, text, sizeof(text), &user) != 0 || !user)
			return -EINVAL;
		*ret = user->pw_uid;
	}
	return 0;
}

static int set_text(char **field, char *value)
{
	if (!value)
		return -ENOMEM;
	free(*field);
	*field = value;
	return 0;
}

/* `~/x` and relative paths made absolute. Caller frees; NULL: no memory, or the working folder is gone. */
static char *absolute(const char *path)
{
	AUTO_FREE char *base = NULL;

	if (path[0] == '/')
		return strdup(path);
	if (path[0] == '~' && (!path[1] || path[1] == '/')) {
		base = util_home_dir();
		return base ? util_printf("%s%s", base, path + 1) : NULL;
	}
	base = getcwd(NULL, 0);
	return base ? util_printf("%s/%s", base, path) : NULL;
}

static int set_list(struct opts *o, const char *value)
{
	char **more;

	if (o->n_ignore >= IGNORE_MAX)
		return -ERANGE;
	more = reallocarray(o->ignore, o->n_ignore + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	o->ignore = more;
	more[o->n_ignore] = strdup(value);
	if (!more[o->n_ignore])
		return -ENOMEM;
	o->n_ignore++;
	return 0;
}

/* What a value of this kind has to be, in words; caller frees. */
static char *allowed(const struct spec *s)
{
	switch (s->kind) {
	case KIND_CHOICE:
		return util_printf("it must be one of %s", s->row.arg);
	case KIND_SECONDS:
		if (s->min)
			return util_printf("it must be seconds above 0, such as 30 or 0.5, and at most %d",
			                   SECONDS_MAX);
		return util_printf("it must be seconds, such as 30 or 0.5, and at most %d", SECONDS_MAX);
	case KIND_SIZE:
		return util_printf("it must be a size such as 512M or 50G, at least %lluM",
		                   (unsigned long long)s->min >> 20);
	case KIND_COUNT:
		return util_printf("it must be a number from %llu to %llu", (unsigned long long)s->min,
		                   (unsigned long long)s->max);
	case KIND_UID:
		return strdup("it must be a user's name or number");
	case KIND_GID:
		return strdup("it must be a group's name or number");
	case KIND_MODE:
		return strdup("it must be octal, from 0 to 777");
	case KIND_URL:
		return strdup("it must start with https:// or http://");
	case KIND_LEVELS:
		return strdup("it must be err, warn, info or debug, and may go on with ,MODULE=LEVEL");
	case KIND_LIST:
		return strdup("there are too many of them");
	case KIND_PATH:
		return strdup("it must be a path");
	case KIND_SET:
	case KIND_CLEAR:
	case KIND_SYNC:
		break;
	}
	return strdup("it takes no value");
}

/* 0, -ENOMEM, or -EINVAL and -ERANGE: not allowed. */
static int set_value(struct opts *o, const struct spec *s, const char *value)
{
	void *field = (char *)o + s->offset;
	uint64_t n = 0;
	int rc = 0;

	switch (s->kind) {
	case KIND_SET:
	case KIND_CLEAR:
		*(bool *)field = s->kind == KIND_SET;
		return 0;
	case KIND_SYNC:
		o->commit = OPTS_COMMIT_SYNC;
		return 0;
	case KIND_CHOICE:
		return set_choice(s, value, field);
	case KIND_PATH:
		return set_text(field, absolute(value));
	case KIND_URL:
		if (strncasecmp(value, "http://", 7) != 0 && strncasecmp(value, "https://", 8) != 0)
			return -EINVAL;
		return set_text(field, strdup(value));
	case KIND_LEVELS:
		rc = log_set_levels(value);
		return rc < 0 ? rc : set_text(field, strdup(value));
	case KIND_LIST:
		return set_list(o, value);
	case KIND_SECONDS:
		rc = parse_seconds(value, &n);
		break;
	case KIND_SIZE:
		rc = util_parse_size(value, &n);
		break;
	case KIND_COUNT:
		rc = parse_number(value, 10, s->max, &n);
		break;
	case KIND_UID:
	case KIND_GID:
		rc = parse_user(value, s->kind == KIND_GID, &n);
		break;
	case KIND_MODE:
		rc = parse_number(value, 8, 0777, &n);
		break;
	}
	if (rc < 0)
		return rc;
	if (s->max && (n < s->min || n > s->max))
		return -ERANGE;
	if (s->kind == KIND_SECONDS)
		*(int64_t *)field = (int64_t)n;
	else if (s->kind == KIND_SIZE)
		*(uint64_t *)field = n;
	else if (s->kind == KIND_COUNT)
		*(unsigned *)field = (unsigned)n;
	else if (s->kind == KIND_UID)
		*(uid_t *)field = (uid_t)n;
	else if (s->kind == KIND_GID)
		*(gid_t *)field = (gid_t)n;
	else
		*(mode_t *)field = (mode_t)n;
	return 0;
}

static int set_spec(struct opts *o, const struct spec *s, struct label l, char **ret_why)
{
	int rc;

	if (!s->row.arg && l.value)
		return refuse(ret_why, l, "it takes no value");
	if (s->row.arg && (!l.value || !*l.value))
		return refuse_text(ret_why, l,
		                   util_printf("a value is missing: %s=%s", s->row.name, s->row.arg));
	if (l.value && strnlen(l.value, VALUE_MAX + 1) > VALUE_MAX)
		return refuse(ret_why, (struct label){l.name, NULL}, "its value is too long");
	rc = set_value(o, s, l.value);
	if (rc == -EINVAL || rc == -ERANGE)
		return refuse_text(ret_why, l, allowed(s));
	if (o->debug)
		o->foreground = true;
	return rc;
}

int opts_set(struct opts *o, const char *name, const char *value, char **ret_why)
{
	struct label l = {name, value};

	for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
		if (strcmp(specs[i].row.name, name) == 0)
			return set_spec(o, &specs[i], l, ret_why);
	}
	for (size_t i = 0; i < ARRAY_LEN(kernel_flags); i++) {
		bool on = strcmp(kernel_flags[i].on, name) == 0;

		if (!on && strcmp(kernel_flags[i].off, name) != 0)
			continue;
		if (value)
			return refuse(ret_why, l, "it takes no value");
		o->kernel = on ? o->kernel | kernel_flags[i].flag : o->kernel & ~kernel_flags[i].flag;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(dropped); i++) {
		if (strcmp(dropped[i], name) == 0)
			return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		if (strcmp(refused[i].name, name) == 0)
			return refuse(ret_why, l, refused[i].why);
	}
	if (strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0)
		return 0;
	return refuse_unknown(ret_why, name);
}

const char *opts_by_letter(char letter)
{
	for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
		if (letter && specs[i].row.letter == letter)
			return specs[i].row.name;
	}
	return NULL;
}

/* -- lists -- */

/* The next item of a list with commas, its backslashes taken away; `*at` moves behind it. */
static int next_item(const char **at, char **ret)
{
	AUTO_BUF item = {0};
	int rc = buf_add(&item, "", 0);
	const char *p = *at;

	for (; *p && *p != ',' && rc == 0; p++) {
		if (*p == '\\' && p[1])
			p++;
		rc = buf_add(&item, p, 1);
	}
	if (rc < 0)
		return rc;
	*at = p + (*p == ',');
	*ret = STEAL(item.data);
	return 0;
}

int opts_parse_o(struct opts *o, const char *text, char **ret_why)
{
	while (*text) {
		AUTO_FREE char *item = NULL;
		int rc = next_item(&text, &item);
		char *equals;

		if (rc < 0)
			return rc;
		if (!*item)
			continue;
		equals = strchr(item, '=');
		if (equals)
			*equals = '\0';
		rc = opts_set(o, item, equals ? equals + 1 : NULL, ret_why);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* -- the environment -- */

/* A switch's variable: -EINVAL if it is neither. */
static int parse_bool(const char *value, bool *ret)
{
	static const char *const yes[] = {"1", "on", "yes", "true"};
	static const char *const no[] = {"0", "off", "no", "false"};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
			*ret = strcasecmp(value, yes[i]) == 0;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_from_env(struct opts *o, const struct spec *s, char **ret_why)
{
	const char *value = s->row.env && !s->env_elsewhere ? getenv(s->row.env) : NULL;
	struct label l = {s->row.env, value};
	bool on;
	int rc = 0;

	if (!value || !*value)
		return 0;
	if (!s->row.arg) {
		if (parse_bool(value, &on) < 0)
			return refuse(ret_why, l, "it must be 1 or 0");
		return on ? set_value(o, s, NULL) : 0;
	}
	if (s->kind != KIND_LIST)
		return set_spec(o, s, l, ret_why);
	while (*value && rc == 0) { /* several, as in -o */
		AUTO_FREE char *item = NULL;

		rc = next_item(&value, &item);
		if (rc == 0 && *item)
			rc = set_spec(o, s, (struct label){s->row.env, item}, ret_why);
	}
	return rc;
}

/* $VAR/hugfs, or ~/fallback/hugfs. The XDG specification ignores relative paths. */
static char *xdg_dir(const char *var, const char *fallback)
{
	const char *value = getenv(var);
	AUTO_FREE char *home = NULL;

	if (value && value[0] == '/')
		return util_printf("%s/hugfs", value);
	home = util_home_dir();
	return home ? util_printf("%s/%s/hugfs", home, fallback) : NULL;
}

/* What the official client goes by; CURL_CA_BUNDLE, which the table names, comes before them. */
static int set_ca_file(struct opts *o)
{
	static const char *const names[] = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return set_text(&o->ca_file, absolute(value));
	}
	return 0;
}

int opts_init(struct opts *o, char **ret_why)
{
	int rc;

	*o = (struct opts){
		.uid = getuid(),
		.gid = getgid(),
		.umask = 022,
		.poll_ms = 30000,
		.commit_delay_ms = 2000,
		.open_wait_ms = 60000,
		.fsync_timeout_ms = 120000,
		.umount_timeout_ms = 30000,
		.cache_size = 50ull << 30,
		.inflight = 256ull << 20,
		.workers = 8,
		.commit_files = 25000,
		.offline = auth_env_offline(),
	};
	rc = set_text(&o->cache_dir, xdg_dir("XDG_CACHE_HOME", ".cache"));
	if (rc == 0)
		rc = set_text(&o->staging_dir, xdg_dir("XDG_STATE_HOME", ".local/state"));
	if (rc == 0)
		rc = set_text(&o->log, strdup("info"));
	if (rc == 0)
		rc = set_ca_file(o);
	for (size_t i = 0; i < ARRAY_LEN(specs) && rc == 0; i++)
		rc = set_from_env(o, &specs[i], ret_why);
	return rc;
}

void opts_fini(struct opts *o)
{
	for (size_t i = 0; i < o->n_ignore; i++)
		free(o->ignore[i]);
	free(o->ignore);
	free(o->cache_dir);
	free(o->staging_dir);
	free(o->endpoint);
	free(o->token_path);
	free(o->ca_file);
	free(o->log);
	*o = (struct opts){0};
}

/* -- help -- */

void opts_print_help(FILE *to)
{
	fputs("Options of a mount, with commas between them (-o ro,poll=10), or from the environment:\n",
	      to);
	for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
		const struct opts_row *row = &specs[i].row;

		fprintf(to, "  %s%s%s", row->name, row->arg ? "=" : "", row->arg ? row->arg : "");
		if (row->letter)
			fprintf(to, " (or -%c)", row->letter);
		fprintf(to, "\n        %s", row->help);
		if (row->preset)
			fprintf(to, " [%s]", row->preset);
		if (row->env)
			fprintf(to, "  $%s", row->env);
		fprintf(to, "\n");
	}
	fputs("What mount(8) and fstab pass (noauto, _netdev, noexec, noatime, x-...) is taken too.\n", to);
}

size_t opts_count(void)
{
	return ARRAY_LEN(specs);
}

const struct opts_row *opts_row(size_t i)
{
	return i < ARRAY_LEN(specs) ? &specs[i].row : NULL;
}
