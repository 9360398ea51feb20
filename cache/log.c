/* log: one line per event, to stderr or syslog.
 *
 * Not for answers to the user (main and cli print those). Any thread. A line is written with one write(2),
 * its control characters are replaced, and whatever looks like a token is blotted out in case a caller was
 * careless.
 *
 * `loudest` is the most talkative level that anything has: the common question "is debug on?" is one atomic
 * load. The mutex is a leaf below every struct lock: lock.c stands to the left of this module. */
#define LOG_MODULE "log"

#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_LEN 4096 /* longer ones are cut: a server's error text is capped before it comes here */
#define MODULES_MAX 48    /* there are fewer modules than that */
#define MODULE_LEN 24

struct levels {
	enum log_level fallback;
	size_t n;
	struct {
		char module[MODULE_LEN];
		enum log_level level;
	} own[MODULES_MAX];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
/* -- guarded by mutex -- */
static struct levels levels = {.fallback = LOG_LEVEL_INFO};
/* -- -- */
static atomic_int loudest = LOG_LEVEL_INFO;
static atomic_bool to_syslog;

static const char *const level_names[] = {"err", "warn", "info", "debug"};

static int parse_level(const char *text, size_t len, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (strlen(level_names[i]) == len && memcmp(level_names[i], text, len) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_module(const char *text, size_t len)
{
	if (len == 0 || len >= MODULE_LEN)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if ((text[i] < 'a' || text[i] > 'z') && text[i] != '_')
			return -EINVAL;
	}
	return 0;
}

int log_set_levels(const char *spec)
{
	struct levels next = {.fallback = LOG_LEVEL_INFO};
	enum log_level loud;

	for (const char *item = spec;; item++) {
		size_t len = strcspn(item, ",");
		const char *equals = memchr(item, '=', len);
		size_t name_len = equals ? (size_t)(equals - item) : 0;
		int rc;

		if (!equals) {
			rc = parse_level(item, len, &next.fallback);
		} else {
			rc = parse_module(item, name_len);
			if (rc == 0 && next.n == MODULES_MAX)
				rc = -EINVAL;
			if (rc == 0)
				rc = parse_level(equals + 1, len - name_len - 1, &next.own[next.n].level);
			if (rc == 0)
				memcpy(next.own[next.n++].module, item, name_len);
		}
		if (rc < 0)
			return rc;
		item += len;
		if (!*item)
			break;
	}
	loud = next.fallback;
	for (size_t i = 0; i < next.n; i++)
		loud = MAX(loud, next.own[i].level);
	pthread_mutex_lock(&mutex);
	levels = next;
	atomic_store(&loudest, (int)loud);
	pthread_mutex_unlock(&mutex);
	return 0;
}

void log_to_syslog(const char *ident)
{
	static char name[32]; /* openlog(3) keeps the pointer */

	snprintf(name, sizeof(name), "%s", ident);
	openlog(name, LOG_PID, LOG_DAEMON);
	atomic_store(&to_syslog, true);
}

bool log_enabled(enum log_level level, const char *module)
{
	enum log_level limit;

	if ((int)level > atomic_load_explicit(&loudest, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&mutex);
	limit = levels.fallback;
	for (size_t i = levels.n; i-- > 0;) { /* of two for one module the later counts */
		if (strcmp(levels.own[i].module, module) == 0) {
			limit = levels.own[i].level;
			break;
		}
	}
	pthread_mutex_unlock(&mutex);
	return level <= limit;
}

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* One line, nothing that moves a terminal's cursor, no token. */
static void clean(char *text)
{
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = *p == '\n' || *p == '\t' ? ' ' : '?';
	}
	for (char *p = strstr(text, "hf_"); p; p = strstr(p, "hf_")) {
		size_t len = 3;

		while (is_alnum(p[len]))
			len++;
		if (len >= 3 + 16) /* tokens have 34 and more; names of branches that long are rare */
			memset(p + 3, '*', len - 3);
		p += len;
	}
}

static void write_stderr(enum log_level level, const char *module, const char *text)
{
	char line[LINE_MAX_LEN + 96];
	struct timespec now;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	n = snprintf(line, sizeof(line), "hugfs: %02d:%02d:%02d.%03ld %s %s: %s\n", tm.tm_hour, tm.tm_min,
	             tm.tm_sec, now.tv_nsec / 1000000, level_names[level], module, text);
	if (n > 0 && util_write_all(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1)) < 0)
		return; /* there is nobody left to tell */
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	char text[LINE_MAX_LEN];
	int saved = errno;
	va_list ap;
	int n;

	if (!log_enabled(level, module))
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0)
		snprintf(text, sizeof(text), "(a line that cannot be formatted)");
	else if ((size_t)n >= sizeof(text))
		memcpy(text + sizeof(text) - 4, "...", 4);
	clean(text);
	if (atomic_load(&to_syslog))
		syslog(priorities[level], "%s: %s", module, text);
	else
		write_stderr(level, module, text);
	errno = saved;
}
