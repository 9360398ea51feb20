/* auth: the token and the endpoint.
 *
 * Not for logging in: hugfs never writes a token. Any thread. The token file is looked at (stat) each time
 * that a token is asked for, and read when it is another file than before, so that `hf auth login` takes
 * effect at once. */
#define LOG_MODULE "auth"

#include "auth.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "lock.h"
#include "log.h"

#define ENDPOINT_DEFAULT "https://huggingface.co"
#define ENDPOINT_MAX 1024
#define TOKEN_FILE_MAX 65536 /* a token has some 40 bytes, one of OAuth some thousand */
#define HOST_MAX 255

struct origin {
	bool https;
	char host[HOST_MAX + 1]; /* lower case */
	unsigned port;
};

struct auth {
	char *endpoint;
	struct origin origin;
	char *env_token;  /* fixed at start: the environment does not change */
	char *token_path;
	bool path_given; /* by the option: then it is a mistake if nothing is there */
	struct lock lock;
	/* -- guarded by lock -- */
	char *file_token;    /* what the file said, cleaned; NULL: none */
	struct stat seen;    /* the file that said so; st_ino 0: none */
	int complained;      /* errno of the last log line about the file */
};

/* -- origins -- */

/* Strict on purpose: what curl might read in another way (user@host, escapes, a backslash) has no origin. */
static int parse_origin(const char *url, struct origin *ret, const char **ret_rest)
{
	struct origin o = {0};
	size_t n;

	if (strncasecmp(url, "https://", 8) == 0) {
		o.https = true;
		url += 8;
	} else if (strncasecmp(url, "http://", 7) == 0) {
		url += 7;
	} else {
		return -EINVAL;
	}
	if (*url == '[') {
		n = 1 + strspn(url + 1, "0123456789abcdefABCDEF:.");
		if (n < 3 || url[n] != ']')
			return -EINVAL;
		n++;
	} else {
		n = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
	}
	if (n == 0 || n > HOST_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		o.host[i] = (char)(url[i] >= 'A' && url[i] <= 'Z' ? url[i] - 'A' + 'a' : url[i]);
	url += n;
	o.port = o.https ? 443 : 80;
	if (*url == ':') {
		o.port = 0;
		for (url++; *url >= '0' && *url <= '9' && o.port <= 65535; url++)
			o.port = o.port * 10 + (unsigned)(*url - '0');
		if (o.port == 0 || o.port > 65535)
			return -EINVAL;
	}
	if (*url && !strchr("/?#", *url))
		return -EINVAL;
	*ret = o;
	*ret_rest = url;
	return 0;
}

const char *auth_endpoint(const struct auth *a)
{
	return a->endpoint;
}

bool auth_same_origin(const struct auth *a, const char *url)
{
	const char *rest;
	struct origin o;

	return parse_origin(url, &o, &rest) == 0 && o.https == a->origin.https && o.port == a->origin.port &&
	       strcmp(o.host, a->origin.host) == 0;
}

/* -- places -- */

/* A variable that is set to something. */
static const char *env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* A leading ~ and $NAME or ${NAME} anywhere, as the official client expands them; what is not set stays. */
static char *expand(const char *text)
{
	AUTO_FREE char *home = NULL;
	AUTO_BUF out = {0};
	int rc = buf_add(&out, "", 0);

	if (text[0] == '~' && (!text[1] || text[1] == '/')) {
		home = util_home_dir();
		if (!home)
			return NULL;
		rc = buf_add(&out, home, strlen(home));
		text++;
	}
	while (*text && rc == 0) {
		bool braced = text[0] == '$' && text[1] == '{';
		const char *name = text + 1 + braced;
		size_t n = 0, used = 1;
		const char *value = NULL;
		char copy[256];

		if (text[0] == '$') {
			n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");
			if (n && n < sizeof(copy) && (!braced || name[n] == '}')) {
				memcpy(copy, name, n);
				copy[n] = '\0';
				value = getenv(copy);
				used = 1 + n + 2 * (size_t)braced;
			}
		}
		rc = value ? buf_add(&out, value, strlen(value)) : buf_add(&out, text, used);
		text += used;
	}
	return rc < 0 ? NULL : STEAL(out.data);
}

/* The first variable that is set, expanded; else `name` in `base`, which is freed. */
static char *place(const char *var, const char *old_var, char *base, const char *name)
{
	AUTO_FREE char *folder = base;
	const char *value = env(var);

	if (!value && old_var)
		value = env(old_var);
	if (value)
		return expand(value);
	return folder ? util_printf("%s/%s", folder, name) : NULL;
}

static char *hf_home(void)
{
	char *cache = place("XDG_CACHE_HOME", NULL, util_home_dir(), ".cache");

	return place("HF_HOME", NULL, cache, "huggingface");
}

char *auth_hub_cache_dir(void)
{
	return place("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", hf_home(), "hub");
}

bool auth_env_offline(void)
{
	static const char *const yes[] = {"1", "on", "yes", "true"};
	const char *value = env("HF_HUB_OFFLINE");

	if (!value)
		value = env("TRANSFORMERS_OFFLINE");
	for (size_t i = 0; value && i < ARRAY_LEN(yes); i++) {
		if (strcasecmp(value, yes[i]) == 0)
			return true;
	}
	return false;
}

/* -- token -- */

void auth_token_freep(char **token)
{
	if (*token)
		explicit_bzero(*token, strlen(*token));
	free(*token);
	*token = NULL;
}

/* Without line ends, without blanks around it (hub-api.md 1.2). 0 with NULL when nothing is left; -EINVAL for
 * bytes that a header cannot carry. */
static int clean_token(const char *text, char **ret)
{
	CLEANUP(auth_token_freep) char *out = malloc(strlen(text) + 1);
	size_t n = 0, skip = 0;

	if (!out)
		return -ENOMEM;
	for (; *text; text++) {
		if (*text != '\r' && *text != '\n')
			out[n++] = *text;
	}
	while (n && (out[n - 1] == ' ' || out[n - 1] == '\t'))
		n--;
	while (skip < n && (out[skip] == ' ' || out[skip] == '\t'))
		skip++;
	n -= skip;
	memmove(out, out + skip, n);
	out[n] = '\0';
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)out[i] <= ' ' || (unsigned char)out[i] >= 0x7f)
			return -EINVAL;
	}
	*ret = n ? STEAL(out) : NULL;
	return 0;
}

static int read_env_token(char **ret)
{
	static const char *const vars[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
	char *token = NULL;

	for (size_t i = 0; i < ARRAY_LEN(vars) && !token; i++) {
		const char *value = env(vars[i]);
		int rc = value ? clean_token(value, &token) : 0;

		if (rc < 0) {
			if (rc == -EINVAL)
				log_err("%s holds characters that no token has: set it to the token alone",
				        vars[i]);
			return rc;
		}
	}
	*ret = token;
	return 0;
}

static void complain_locked(struct auth *a, int err)
{
	if (a->complained == err)
		return;
	a->complained = err;
	if (err == EINVAL)
		log_warn("the token file %s holds characters that no token has; going on without a token",
		         a->token_path);
	else if (err && (a->path_given || (err != ENOENT && err != ENOTDIR)))
		log_warn("the token file %s cannot be read (%s); going on without a token", a->token_path,
		         strerror(err));
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Brings file_token up to what the file says now. A file that is replaced between stat and read is read again
 * next time, for its stat differs then. */
static void look_at_file_locked(struct auth *a)
{
	CLEANUP(auth_token_freep) char *text = NULL;
	CLEANUP(auth_token_freep) char *token = NULL;
	struct stat st = {0};
	int rc;

	rc = stat(a->token_path, &st) < 0 ? -errno : 0;
	if (rc == 0 && a->seen.st_ino && same_file(&st, &a->seen))
		return;
	if (rc == 0 && !S_ISREG(st.st_mode))
		rc = -EACCES; /* a pipe would block, and a folder is a mistake */
	if (rc == 0)
		rc = util_read_file(a->token_path, TOKEN_FILE_MAX, &text, NULL);
	if (rc == 0)
		rc = clean_token(text, &token);
	complain_locked(a, -rc);
	auth_token_freep(&a->file_token);
	a->file_token = STEAL(token);
	a->seen = rc == 0 ? st : (struct stat){0};
}

char *auth_token(struct auth *a)
{
	if (a->env_token)
		return strdup(a->env_token);
	LOCKED(&a->lock);
	look_at_file_locked(a);
	return a->file_token ? strdup(a->file_token) : NULL;
}

/* -- life -- */

static void auth_freep(struct auth **a)
{
	auth_free(*a);
}

int auth_new(const char *endpoint, const char *token_path, struct auth **ret)
{
	CLEANUP(auth_freep) struct auth *a = NULL;
	const char *rest;
	size_t len;
	int rc;

	if (!endpoint)
		endpoint = env("HF_ENDPOINT");
	if (!endpoint)
		endpoint = ENDPOINT_DEFAULT;
	len = strnlen(endpoint, ENDPOINT_MAX + 1);
	if (len > ENDPOINT_MAX)
		return -EINVAL;
	if (len && endpoint[len - 1] == '/')
		len--;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	lock_init(&a->lock, LOCK_AUTH);
	a->endpoint = strndup(endpoint, len);
	a->path_given = token_path != NULL;
	a->token_path = token_path ? expand(token_path) : place("HF_TOKEN_PATH", NULL, hf_home(), "token");
	if (!a->endpoint || !a->token_path)
		return -ENOMEM;
	rc = parse_origin(a->endpoint, &a->origin, &rest);
	if (rc < 0)
		return rc;
	for (; *rest; rest++) { /* a mirror may live below a path */
		if ((unsigned char)*rest <= ' ' || (unsigned char)*rest >= 0x7f || strchr("?#\\\"<>", *rest))
			return -EINVAL;
	}
	rc = read_env_token(&a->env_token);
	if (rc < 0)
		return rc;
	*ret = STEAL(a);
	return 0;
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	auth_token_freep(&a->env_token);
	auth_token_freep(&a->file_token);
	lock_fini(&a->lock);
	free(a->token_path);
	free(a->endpoint);
	free(a);
}
