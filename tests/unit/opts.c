/* opts: every row of the table, its defaults, its mistakes, what mount(8) passes, and the manual that has to
 * name it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ignore.h"
#include "log.h"
#include "opts.h"

static void clear_env(void)
{
	for (size_t i = 0; i < opts_count(); i++) {
		if (opts_row(i)->env)
			unsetenv(opts_row(i)->env);
	}
	unsetenv("TRANSFORMERS_OFFLINE");
	unsetenv("SSL_CERT_FILE");
	unsetenv("REQUESTS_CA_BUNDLE");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_STATE_HOME");
	setenv("HOME", "/home/me", 1);
}

static int setup(void **state)
{
	static struct opts o;
	char *why = NULL;

	clear_env();
	*state = &o;
	return opts_init(&o, &why);
}

static int teardown(void **state)
{
	opts_fini(*state);
	clear_env();
	return log_set_levels("info");
}

static void good(struct opts *o, const char *text)
{
	char *why = NULL;

	print_message("%s\n", text);
	assert_int_equal(opts_parse_o(o, text, &why), 0);
	assert_null(why);
}

/* Refused, with both in the reason. */
static void bad(struct opts *o, const char *text, const char *part, const char *other_part)
{
	AUTO_FREE char *why = NULL;

	assert_int_equal(opts_parse_o(o, text, &why), -EINVAL);
	assert_non_null(why);
	print_message("%s -> %s\n", text, why);
	assert_non_null(strstr(why, part));
	assert_non_null(strstr(why, other_part));
}

static void test_defaults(void **state)
{
	struct opts *o = *state;
	char kernel[OPTS_KERNEL_MAX];

	assert_false(o->read_only || o->allow_other || o->noxattr || o->nopassthrough || o->offline || o->foreground || o->debug);
	assert_int_equal(o->uid, getuid());
	assert_int_equal(o->gid, getgid());
	assert_int_equal(o->umask, 022);
	assert_int_equal(o->poll_ms, 30000);
	assert_int_equal(o->commit, OPTS_COMMIT_CLOSE);
	assert_int_equal(o->commit_delay_ms, 2000);
	assert_int_equal(o->open_wait_ms, 60000);
	assert_int_equal(o->fsync, OPTS_FSYNC_PUBLISH);
	assert_int_equal(o->fsync_timeout_ms, 120000);
	assert_int_equal(o->umount_timeout_ms, 30000);
	assert_int_equal(o->n_ignore, 0);
	assert_string_equal(o->cache_dir, "/home/me/.cache/hugfs");
	assert_string_equal(o->staging_dir, "/home/me/.local/state/hugfs");
	assert_true(o->cache_size == 50ull << 30);
	assert_true(o->inflight == 256ull << 20);
	assert_int_equal(o->workers, 8);
	assert_null(o->endpoint);
	assert_null(o->token_path);
	assert_null(o->ca_file);
	assert_string_equal(o->log, "info");
	opts_kernel(o, kernel);
	assert_string_equal(kernel, "");
}

static void test_all(void **state)
{
	struct opts *o = *state;

	good(o, "ro,allow_other,uid=1000,gid=0,umask=077,noxattr,poll=5");
	assert_true(o->read_only && o->allow_other && o->noxattr);
	assert_int_equal(o->uid, 1000);
	assert_int_equal(o->gid, 0);
	assert_int_equal(o->umask, 077);
	assert_int_equal(o->poll_ms, 5000);
	good(o, "commit=fsync,commit_delay=0.25,open_wait=0,fsync=stage,fsync_timeout=5,umount_timeout=1.5");
	assert_int_equal(o->commit, OPTS_COMMIT_FSYNC);
	assert_int_equal(o->commit_delay_ms, 250);
	assert_int_equal(o->open_wait_ms, 0);
	assert_int_equal(o->fsync, OPTS_FSYNC_STAGE);
	assert_int_equal(o->fsync_timeout_ms, 5000);
	assert_int_equal(o->umount_timeout_ms, 1500);
	good(o, "sync,commit_interval=300");
	assert_int_equal(o->commit, OPTS_COMMIT_SYNC);
	assert_int_equal(o->commit_interval_ms, 300000);
	good(o, "on_conflict=ours");
	assert_int_equal(o->on_conflict, OPTS_CONFLICT_OURS);
	good(o, "commit=manual,commit=sync");
	assert_int_equal(o->commit, OPTS_COMMIT_SYNC);
	good(o, "cache_size=1.5G,inflight=64MiB,workers=3,offline,foreground");
	assert_true(o->cache_size == 3ull << 29);
	assert_true(o->inflight == 64 << 20);
	assert_int_equal(o->workers, 3);
	assert_true(o->offline && o->foreground && !o->debug);
	good(o, "endpoint=http://127.0.0.1:9,token_path=~/tok,cache_dir=/c,staging_dir=/s");
	assert_string_equal(o->endpoint, "http://127.0.0.1:9");
	assert_string_equal(o->token_path, "/home/me/tok");
	assert_string_equal(o->cache_dir, "/c");
	assert_string_equal(o->staging_dir, "/s");
	good(o, "ro,rw,commit=manual,commit=close,uid=root,gid=root");
	assert_false(o->read_only);
	assert_int_equal(o->commit, OPTS_COMMIT_CLOSE);
	assert_int_equal(o->uid, 0);
	assert_int_equal(o->gid, 0);
	good(o, "log=warn\\,http=debug");
	assert_string_equal(o->log, "warn,http=debug");
	assert_true(log_enabled(LOG_LEVEL_DEBUG, "http"));
	assert_false(log_enabled(LOG_LEVEL_INFO, "fetch"));
	good(o, "");
	good(o, ",,ro,");
}

static void test_debug_implies_foreground(void **state)
{
	struct opts *o = *state;

	good(o, opts_by_letter('d'));
	assert_true(o->debug && o->foreground);
	assert_string_equal(opts_by_letter('f'), "foreground");
	assert_null(opts_by_letter('x'));
	assert_null(opts_by_letter(0));
}

static void test_relative_paths(void **state)
{
	AUTO_FREE char *cwd = getcwd(NULL, 0), *want = util_printf("%s/a b", cwd);
	struct opts *o = *state;

	good(o, "cache_dir=a b");
	assert_string_equal(o->cache_dir, want);
	good(o, "cache_dir=~");
	assert_string_equal(o->cache_dir, "/home/me");
}

static void test_escapes(void **state)
{
	struct opts *o = *state;

	good(o, "cache_dir=/a\\,b,staging_dir=/c\\\\d=e,ro");
	assert_string_equal(o->cache_dir, "/a,b");
	assert_string_equal(o->staging_dir, "/c\\d=e");
	assert_true(o->read_only);
	good(o, "cache_dir=/x\\");
	assert_string_equal(o->cache_dir, "/x\\");
}

static void test_ignore(void **state)
{
	struct opts *o = *state;
	struct ignore *ig = NULL;
	char *why = NULL;

	good(o, "ignore=*.log,ignore=!*.tmp,ignore=runs/,ignore=a\\,b");
	assert_int_equal(o->n_ignore, 4);
	assert_int_equal(ignore_new((const char *const *)o->ignore, o->n_ignore, &ig, &why), 0);
	assert_true(ignore_match(ig, "a,b", false));
	assert_true(ignore_match(ig, "x.log", false));
	assert_false(ignore_match(ig, "x.tmp", false));
	ignore_free(ig);
}

static void test_bad_values(void **state)
{
	struct opts *o = *state;
	AUTO_FREE char *big = malloc(20001);

	bad(o, "sync=1", "sync=1", "takes no value");
	bad(o, "commit_interval=x", "commit_interval=x", "seconds");
	bad(o, "commit=", "a value is missing", "close|sync|fsync|manual");
	bad(o, "commit", "a value is missing", "close|sync|fsync|manual");
	bad(o, "commit=Close", "commit=Close", "close|sync|fsync|manual");
	bad(o, "commit=clos", "commit=clos", "close|sync|fsync|manual");
	bad(o, "fsync=close", "fsync=close", "publish|stage");
	bad(o, "ro=1", "ro=1", "takes no value");
	bad(o, "noxattr=", "noxattr", "takes no value");
	bad(o, "poll=abc", "poll=abc", "seconds");
	bad(o, "poll=-1", "poll=-1", "seconds");
	bad(o, "poll=1.", "poll=1.", "seconds");
	bad(o, "poll=.5", "poll=.5", "seconds");
	bad(o, "poll=1,5", "unknown option 5", "help");
	bad(o, "poll=99999999999999999999", "poll", "seconds");
	bad(o, "poll=604801", "poll", "604800");
	bad(o, "fsync_timeout=0", "fsync_timeout", "above 0");
	bad(o, "fsync_timeout=0.0001", "fsync_timeout", "above 0");
	bad(o, "umask=8", "umask=8", "octal");
	bad(o, "umask=1000", "umask=1000", "octal");
	bad(o, "uid=no such user", "uid=", "user");
	bad(o, "uid=4294967295", "uid=", "user");
	bad(o, "uid=12x", "uid=", "user");
	bad(o, "gid=no such group", "gid=", "group");
	bad(o, "cache_size=1K", "cache_size=1K", "4M");
	bad(o, "cache_size=50Q", "cache_size=50Q", "512M");
	bad(o, "inflight=0", "inflight=0", "4M");
	bad(o, "inflight=16E", "inflight", "4M");
	bad(o, "workers=0", "workers=0", "from 1 to 64");
	bad(o, "workers=65", "workers=65", "from 1 to 64");
	bad(o, "workers=", "workers", "missing");
	bad(o, "endpoint=huggingface.co", "endpoint", "https://");
	bad(o, "log=loud", "log=loud", "debug");
	bad(o, "log=info,http=debug", "unknown option http", "help"); /* its comma was to be escaped */
	bad(o, "cache_dir=", "cache_dir", "missing");
	memset(big, 'a', 20000);
	memcpy(big, "cache_dir=/", 11);
	big[20000] = '\0';
	bad(o, big, "cache_dir", "too long");
	assert_string_equal(o->cache_dir, "/home/me/.cache/hugfs");
	assert_int_equal(o->poll_ms, 1000); /* "poll=1,5": what stood before the mistake is in force */
}

static void test_unknown(void **state)
{
	struct opts *o = *state;

	bad(o, "comit=close", "unknown option comit", "did you mean commit?");
	bad(o, "readonly", "unknown option readonly", "help");
	bad(o, "commit-delay=1", "unknown option commit-delay", "did you mean commit_delay?");
	bad(o, "noatim", "unknown option noatim", "did you mean noatime?");
	bad(o, "nofial", "unknown option nofial", "did you mean nofail?");
	bad(o, "RO", "unknown option RO", "o");
	bad(o, "zzzzzzzzzzzzzz", "unknown option zzzzzzzzzzzzzz", "help");
	/* of later versions */
	bad(o, "gitignore", "unknown option gitignore", "");
	bad(o, "on_conflict=theirs", "on_conflict=theirs", "keep|pr|ours");
	bad(o, "symlinks=local", "unknown option symlinks", "");
	bad(o, "=x", "unknown option", "");
}

static void test_mount_options(void **state)
{
	struct opts *o = *state;
	char kernel[OPTS_KERNEL_MAX];

	/* What mount -t fuse.hugfs and fstab lines send. */
	good(o, "defaults,auto,noauto,user,user=me,users,nouser,owner,group,nofail,_netdev,comment=x,"
	        "x-systemd.automount,x-systemd.idle-timeout=1min,X-mount.mkdir=0700,async,suid,nosuid,dev,"
	        "nodev,relatime,norelatime,strictatime,nostrictatime,lazytime,nolazytime,silent");
	opts_kernel(o, kernel);
	assert_string_equal(kernel, "");
	good(o, "noexec,noatime,nodiratime,ro");
	opts_kernel(o, kernel);
	assert_string_equal(kernel, "noexec,noatime,nodiratime");
	good(o, "exec,atime");
	opts_kernel(o, kernel);
	assert_string_equal(kernel, "nodiratime");
	bad(o, "noexec=1", "noexec=1", "no value");
	bad(o, "dirsync", "option dirsync", "commit");
	bad(o, "remount", "option remount", "unmount");
	bad(o, "rw,remount,ro", "option remount", "unmount");
}

static void init_again(struct opts *o, int rc, const char *part)
{
	AUTO_FREE char *why = NULL;

	opts_fini(o);
	assert_int_equal(opts_init(o, &why), rc);
	if (part) {
		assert_non_null(why);
		print_message("%s\n", why);
		assert_non_null(strstr(why, part));
	} else {
		assert_null(why);
	}
}

static void test_environment(void **state)
{
	struct opts *o = *state;

	setenv("HUGFS_POLL", "7", 1);
	setenv("HUGFS_COMMIT", "manual", 1);
	setenv("HUGFS_NOXATTR", "yes", 1);
	setenv("HUGFS_RO", "0", 1);
	setenv("HUGFS_ALLOW_OTHER", "", 1);
	setenv("HUGFS_IGNORE", "*.log,runs/,a\\,b", 1);
	setenv("HUGFS_LOG", "warn,http=debug", 1);
	setenv("HF_HUB_OFFLINE", "1", 1);
	setenv("HF_ENDPOINT", "nonsense: auth.c judges it", 1);
	setenv("XDG_CACHE_HOME", "/xc", 1);
	setenv("XDG_STATE_HOME", "not/absolute", 1);
	init_again(o, 0, NULL);
	assert_int_equal(o->poll_ms, 7000);
	assert_int_equal(o->commit, OPTS_COMMIT_MANUAL);
	assert_true(o->noxattr && o->offline && !o->read_only && !o->allow_other);
	assert_int_equal(o->n_ignore, 3);
	assert_string_equal(o->ignore[2], "a,b");
	assert_string_equal(o->log, "warn,http=debug");
	assert_null(o->endpoint);
	assert_string_equal(o->cache_dir, "/xc/hugfs");
	assert_string_equal(o->staging_dir, "/home/me/.local/state/hugfs");
	good(o, "poll=8,ignore=x"); /* -o beats the environment, and adds to a list */
	assert_int_equal(o->poll_ms, 8000);
	assert_int_equal(o->n_ignore, 4);
	setenv("HUGFS_NOXATTR", "maybe", 1);
	init_again(o, -EINVAL, "HUGFS_NOXATTR=maybe");
	unsetenv("HUGFS_NOXATTR");
	setenv("HUGFS_POLL", "soon", 1);
	init_again(o, -EINVAL, "HUGFS_POLL=soon");
	clear_env();
	init_again(o, 0, NULL);
}

/* What other programs go by: each alone, then by rank, and -o before all. */
static void test_authorities(void **state)
{
	static const char *const names[] = {"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"};
	struct opts *o = *state;
	char path[64];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "/etc/%s.pem", names[i]);
		setenv(names[i], path, 1);
		init_again(o, 0, NULL);
		assert_string_equal(o->ca_file, path);
	}
	good(o, "ca_file=~/mine.pem");
	assert_string_equal(o->ca_file, "/home/me/mine.pem");
	setenv("CURL_CA_BUNDLE", "", 1);
	init_again(o, 0, NULL);
	assert_string_equal(o->ca_file, "/etc/SSL_CERT_FILE.pem");
}

/* An option can be set by each row's own name, and no two rows share one, a letter or a variable. */
static void test_table(void **state)
{
	assert_true(opts_count() > 20);
	assert_null(opts_row(opts_count()));
	for (size_t i = 0; i < opts_count(); i++) {
		const struct opts_row *row = opts_row(i);
		AUTO_FREE char *why = NULL;
		struct opts *o = *state;
		int rc = opts_set(o, row->name, NULL, &why);

		print_message("%s\n", row->name);
		assert_int_equal(rc, row->arg ? -EINVAL : 0);
		assert_true(*row->help && row->help[strlen(row->help) - 1] != '.');
		assert_true(strspn(row->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(row->name));
		for (size_t j = 0; j < i; j++) {
			assert_string_not_equal(row->name, opts_row(j)->name);
			assert_true(!row->letter || row->letter != opts_row(j)->letter);
			if (row->env && opts_row(j)->env)
				assert_string_not_equal(row->env, opts_row(j)->env);
		}
		if (row->env && strncmp(row->env, "HUGFS_", 6) == 0)
			assert_int_equal(strcasecmp(row->env + 6, row->name), 0);
	}
}

static void test_help(void **state)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0;
	FILE *to = open_memstream(&text, &len);

	opts_print_help(to);
	fclose(to);
	for (size_t i = 0; i < opts_count(); i++) {
		AUTO_FREE char *name = util_printf("\n  %s", opts_row(i)->name);

		assert_non_null(strstr(text, name));
		assert_non_null(strstr(text, opts_row(i)->help));
	}
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
		assert_true(end - line <= 120);
}

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool names_word(const char *text, const char *word)
{
	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
		if ((at == text || !is_word(at[-1])) && !is_word(at[strlen(word)]))
			return true;
	}
	return false;
}

/* The manual names every option and every variable. */
static void test_manual(void **state)
{
	const char *root = getenv("HUGFS_SOURCE_ROOT");
	AUTO_FREE char *path = util_printf("%s/man/hugfs.1", root ? root : "."), *text = NULL;

	assert_int_equal(util_read_file(path, 1 << 20, &text, NULL), 0);
	for (size_t i = 0; i < opts_count(); i++) {
		print_message("%s\n", opts_row(i)->name);
		assert_true(names_word(text, opts_row(i)->name));
		if (opts_row(i)->env)
			assert_true(names_word(text, opts_row(i)->env));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_debug_implies_foreground, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relative_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_escapes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ignore, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_values, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mount_options, setup, teardown),
		cmocka_unit_test_setup_teardown(test_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(test_authorities, setup, teardown),
		cmocka_unit_test_setup_teardown(test_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_help, setup, teardown),
		cmocka_unit_test(test_manual),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
