/* log: one line per event to stderr (foreground) or syslog (background).
 *
 * log_err: the user must act; log_warn: something is degraded; log_info: once per mount or commit;
 * log_debug: per request. Each level can be raised for one module ("http=debug") and changed while
 * mounted. Tokens and query strings never go in. Any thread. */
#ifndef HUGFS_LOG_H
#define HUGFS_LOG_H

#include "util.h"

enum log_level { LOG_LEVEL_ERR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* "warn", "debug", "info,http=debug": the default level (err, warn, info, debug; info when it is not named)
 * and those of single modules; replaces all that was set before. -EINVAL names nothing: the caller has the
 * text. */
int log_set_levels(const char *spec) MUST_USE;

/* From now on to syslog(3) with this identity, for a daemon that has no terminal. */
void log_to_syslog(const char *ident);

bool log_enabled(enum log_level level, const char *module);
void log_write(enum log_level level, const char *module, const char *fmt, ...) PRINTF(3, 4);

/* LOG_MODULE is set by each .c before it includes anything: its file's name without .c. */
#define log_err(...) log_write(LOG_LEVEL_ERR, LOG_MODULE, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, LOG_MODULE, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, LOG_MODULE, __VA_ARGS__)
#define log_debug(...) \
	(log_enabled(LOG_LEVEL_DEBUG, LOG_MODULE) ? log_write(LOG_LEVEL_DEBUG, LOG_MODULE, __VA_ARGS__) \
	                                           : (void)0)

#endif
