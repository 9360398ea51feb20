/* cli: the verbs that are not mount. Each takes its own words (argv[0] is the verb) and returns the
 * process's exit status. */
#ifndef HUGFS_CLI_H
#define HUGFS_CLI_H

/* A verb's word, how it is used and what it does, in one line each; for --help and for its own mistakes. */
struct cli_verb {
	const char *name;
	const char *usage;
	const char *help;
	int (*run)(int argc, char **argv);
};
/* Ends with a NULL name. */
extern const struct cli_verb cli_verbs[];

#endif
