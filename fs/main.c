/* main: which verb was meant.
 *
 * Not for what a verb does (cli, mount) nor what an option means (opts). A first word with `hf://` or a
 * slash is a SOURCE to mount; another word that is no verb is a mistake and never mounted. One thread. */
#define LOG_MODULE "main"

#include <string.h>

#include "cli.h"
#include "mount.h"
#include "opts.h"

#define WORD_MAX 32 /* longer words are no mistyped verbs */

static void print_help(FILE *to)
{
	fprintf(to, "hugfs mounts the Hugging Face Hub as a filesystem.\n\n"
	            "  hugfs SOURCE MOUNTPOINT [-fd] [-o OPTION[,OPTION...]]...\n"
	            "      mounts; SOURCE is hf://, hf://user/repo, hf://user/repo@revision[/folder];\n"
	            "      datasets and spaces: hf://datasets/user/repo, hf://spaces/user/repo\n");
	for (const struct cli_verb *v = cli_verbs; v->name; v++)
		fprintf(to, "  hugfs %s%s%s\n      %s\n", v->name, *v->usage ? " " : "", v->usage, v->help);
	fprintf(to, "  hugfs --help, hugfs --version\n\n");
	opts_print_help(to);
}

static int mistake(const char *text)
{
	fprintf(stderr, "hugfs: %s; `hugfs --help` lists everything\n", text);
	return 2;
}

/* Letters to change, add or take away to make one word of the other. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[WORD_MAX + 1];
	size_t n = strlen(b);

	if (strlen(a) > WORD_MAX || n > WORD_MAX)
		return WORD_MAX;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 0; a[i]; i++) {
		unsigned corner = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < n; j++) {
			unsigned changed = corner + (a[i] != b[j]);

			corner = row[j + 1];
			row[j + 1] = MIN(changed, MIN(corner, row[j]) + 1);
		}
	}
	return row[n];
}

static int no_such_verb(const char *word)
{
	const char *near = NULL;
	unsigned best = (unsigned)strlen(word) / 2 + 1; /* more mistakes than this are another word */

	for (const struct cli_verb *v = cli_verbs; v->name; v++) {
		unsigned d = distance(word, v->name);

		if (d < best) {
			best = d;
			near = v->name;
		}
	}
	fprintf(stderr, "hugfs: there is no verb %s", word);
	if (near)
		fprintf(stderr, "; did you mean %s?", near);
	fprintf(stderr, " (A SOURCE to mount has hf:// or a slash: hf://%s)\n", word);
	return 2;
}

static bool is_source(const char *word)
{
	return strncmp(word, "hf://", 5) == 0 || strchr(word, '/');
}

/* What stands in "-f", "-fd", "-o x", "-ox". *i is the word's number; it moves when the next word belongs
 * to it. */
static int take_letters(struct opts *o, int argc, char **argv, int *i, char **ret_why)
{
	for (const char *p = argv[*i] + 1; *p; p++) {
		const char *name = opts_by_letter(*p);
		int r;

		if (*p == 'o') {
			const char *text = p[1] ? p + 1 : ++*i < argc ? argv[*i] : NULL;

			if (text)
				return opts_parse_o(o, text, ret_why);
			*ret_why = util_printf("-o wants options after it");
			return -1;
		}
		if (!name) {
			*ret_why = util_printf("there is no option -%c", *p);
			return -1;
		}
		r = opts_set(o, name, NULL, ret_why);
		if (r < 0)
			return r;
	}
	return 0;
}

static int refuse_word(const char *word, char **ret_why)
{
	*ret_why = util_printf("there is no option %s", word);
	return -1;
}

struct words {
	const char *source, *mountpoint;
	bool too_many;
};

static void take_word(struct words *w, const char *word)
{
	if (!w->source)
		w->source = word;
	else if (!w->mountpoint)
		w->mountpoint = word;
	else
		w->too_many = true;
}

static int mount_with(struct opts *o, int argc, char **argv, char **ret_why)
{
	struct words w = {0};
	bool options = true;
	int r = opts_init(o, ret_why);

	for (int i = 1; i < argc && r == 0; i++) {
		if (options && strcmp(argv[i], "--") == 0)
			options = false;
		else if (options && argv[i][0] == '-' && argv[i][1] == '-')
			r = refuse_word(argv[i], ret_why);
		else if (options && argv[i][0] == '-' && argv[i][1])
			r = take_letters(o, argc, argv, &i, ret_why);
		else
			take_word(&w, argv[i]);
	}
	if (r < 0)
		return mistake(*ret_why ? *ret_why : "out of memory");
	if (!w.source)
		return mistake("there is no SOURCE to mount");
	if (!is_source(w.source))
		return no_such_verb(w.source);
	if (!w.mountpoint)
		return mistake("there is no MOUNTPOINT: name a directory after the SOURCE");
	if (w.too_many)
		return mistake("there are too many words: after SOURCE and MOUNTPOINT only -o and its options");
	return mount_run(o, w.source, w.mountpoint);
}

static int mount_verb(int argc, char **argv)
{
	AUTO_FREE char *why = NULL;
	struct opts o;
	int status = mount_with(&o, argc, argv, &why);

	opts_fini(&o);
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_help(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_help(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("hugfs %s\n", HUGFS_VERSION);
		return 0;
	}
	if (argv[1][0] == '-' || is_source(argv[1]))
		return mount_verb(argc, argv);
	for (const struct cli_verb *v = cli_verbs; v->name; v++) {
		if (strcmp(argv[1], v->name) == 0)
			return v->run(argc - 1, argv + 1);
	}
	return no_such_verb(argv[1]);
}
