/* cli_run: the verb run: a program whose changes of a branch become one commit, or none.
 *
 * Not for what a transaction is (stage_tx, publish). One thread, and the program beside it. The daemon keeps the
 * transaction for as long as our connection lives, so that whoever kills us leaves it held. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_SIGNAL 128   /* as shells say it */
#define EXIT_NOT_RUN 127

extern char **environ;

struct run {
	struct control_request end;
	struct buf text;
	const char *path;
	char **program;
	bool discard;
};

/* The program's exit status, as a shell tells it. Ctrl-C and the like are for the program: we stay to end what it began. */
static int run_program(char **program)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	posix_spawnattr_t attr;
	sigset_t usual;
	pid_t pid;
	int err, status;

	sigaction(SIGINT, &ignore, NULL);
	sigaction(SIGQUIT, &ignore, NULL);
	sigemptyset(&usual);
	sigaddset(&usual, SIGINT);
	sigaddset(&usual, SIGQUIT);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigdefault(&attr, &usual);
	err = posix_spawnp(&pid, program[0], NULL, &attr, program, environ);
	posix_spawnattr_destroy(&attr);
	if (err) {
		cli_complain("%s: %s", program[0], strerror(err));
		return EXIT_NOT_RUN;
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return EXIT_NOT_RUN;
	}
	return WIFSIGNALED(status) ? EXIT_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

static int end(const struct control_mount *m, struct run *run, char *outcome)
{
	struct control_answer ans = {0};
	int r;

	run->end.outcome = outcome;
	run->end.path = m->path;
	r = cli_ask(m, &run->end, &ans);
	for (size_t i = 0; r == CLI_OK && i < ans.n_revs && strcmp(outcome, "commit") == 0; i++)
		r = cli_print_committed(&ans.revs[i]);
	control_answer_fini(&ans);
	return r;
}

static int run_at(const struct control_mount *m, struct run *run)
{
	char commit[] = "commit", hold[] = "hold", discard[] = "discard";
	const struct control_request begin = {.verb = CONTROL_BEGIN, .path = m->path};
	struct control_answer ans = {0};
	int fd = -1, status, r = cli_ask_mount(m, &begin, &ans, &fd);

	if (r < 0)
		return cli_complain("the daemon of %s does not answer: %s", m->mountpoint, strerror(-r));
	if (ans.error) {
		r = cli_complain("%s: %s", run->path, cli_why(ans.error_text, ans.error));
		control_answer_fini(&ans);
		close(fd);
		return r;
	}
	control_answer_fini(&ans);
	status = run_program(run->program);
	if (status == 0) {
		r = end(m, run, commit);
		if (r == CLI_FAILED)
			cli_complain("%s is held: `hugfs commit` publishes it, `hugfs discard` takes it back", run->path);
	} else {
		cli_complain("%s ended with %d: %s", run->program[0], status, run->discard ? "its changes are thrown away"
		             : "its changes are held; `hugfs commit` publishes them, `hugfs discard` takes them back");
		r = end(m, run, run->discard ? discard : hold) == CLI_OK ? status : CLI_FAILED;
	}
	close(fd);
	return r;
}

/* Where the program begins; 0: the words make no sense. */
static int parse(struct run *run, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") == 0)
			return run->path && i + 1 < argc ? i + 1 : 0;
		if (strcmp(argv[i], "-m") == 0 && i + 1 < argc) {
			if (cli_add_message(&run->end, &run->text, argv[++i]) < 0)
				return 0;
		} else if (strcmp(argv[i], "--pr") == 0) {
			run->end.pr = true;
		} else if (strcmp(argv[i], "--discard") == 0) {
			run->discard = true;
		} else if (argv[i][0] == '-' || run->path) {
			return 0;
		} else {
			run->path = argv[i];
		}
	}
	return 0;
}

int cli_run(int argc, char **argv)
{
	struct run run = {.end.verb = CONTROL_END, .text.max = CLI_DESCRIPTION_MAX};
	struct control_mount m = {0};
	int r, program = parse(&run, argc, argv);

	if (!program) {
		buf_fini(&run.text);
		return cli_usage(argv[0]);
	}
	run.program = argv + program;
	run.end.description = run.text.data;
	r = cli_find(run.path, &m);
	if (r == CLI_OK)
		r = run_at(&m, &run);
	control_mount_fini(&m);
	buf_fini(&run.text);
	return r;
}
