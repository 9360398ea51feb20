/* auth: the token and the endpoint: where they come from, when they are read again.
 *
 * Token: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, then the token file (token_path option, HF_TOKEN_PATH,
 * $HF_HOME/token, ~/.cache/huggingface/token), which is read again when it changed (hub-api.md 1.1, 1.2).
 * The token is never logged and leaves this module only as an Authorization header. Any thread. */
#ifndef HUGFS_AUTH_H
#define HUGFS_AUTH_H

#include "util.h"

struct auth;

/* endpoint NULL: HF_ENDPOINT, else https://huggingface.co. One trailing slash is stripped. token_path NULL:
 * the environment's. -EINVAL: not an http(s) URL. */
int auth_new(const char *endpoint, const char *token_path, struct auth **ret) MUST_USE;
void auth_free(struct auth *a);

const char *auth_endpoint(const struct auth *a); /* without trailing slash; lives as long as `a` */
/* Have scheme, host and port of `url` the endpoint's values? Only then may the token go along (hub-api.md
 * 1.6). */
bool auth_same_origin(const struct auth *a, const char *url);
/* The token cleaned of blanks and line ends, or NULL when there is none. Caller frees (it is wiped by
 * auth_token_freep). May read the token file. */
char *auth_token(struct auth *a) MUST_USE;
void auth_token_freep(char **token);
/* HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set to a true value. */
bool auth_env_offline(void);
/* HF_HUB_CACHE | HUGGINGFACE_HUB_CACHE | $HF_HOME/hub | default. Caller frees. */
char *auth_hub_cache_dir(void) MUST_USE;

#endif
