package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"skein/node/client"
)

// errDeclined: the person said no.
var errDeclined = errors.New("nothing was changed")

func (a *app) leave(yes *bool) func(ctx context.Context, c *client.Client, args []string) error {
	return func(ctx context.Context, c *client.Client, _ []string) error {
		raft, err := c.Raft(ctx)
		if err != nil {
			return err
		}
		if err := a.confirm(*yes, fmt.Sprintf("Make node %s leave its fleet and stop?", raft.Node)); err != nil {
			return err
		}
		if err := c.Leave(ctx); err != nil {
			return err
		}
		return a.print(map[string]any{"left": true, "node": raft.Node}, func(w io.Writer) {
			fmt.Fprintf(w, "Node %s has left its fleet and stops.\n", raft.Node)
		})
	}
}

// confirm asks on a terminal, unless yes. Where nobody can answer, --yes has to
// say it: a script that does this by mistake does nothing.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !a.terminal() {
		return usage(fmt.Errorf("%s Nobody is here to answer; add --yes if you are sure", clean(question)))
	}
	fmt.Fprintf(a.err, "%s [y/N] ", clean(question))
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}

// shellQuote makes text one word for a POSIX shell.
func shellQuote(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@+", r)
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
