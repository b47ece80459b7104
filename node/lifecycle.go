package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// stopTimeout is how long a part may take to end after it was told to. A part
// that does not is reported by name and left to the end of the process.
const stopTimeout = 5 * time.Second

// part is one long-lived piece of a node. run returns when its context ends;
// returning earlier, with or without an error, ends the node.
type part struct {
	name string
	run  func(ctx context.Context) error
}

type runningPart struct {
	part
	stop context.CancelCauseFunc
	done chan struct{}
}

// runParts starts parts in order and, when ctx ends or one of them fails,
// stops them in reverse, each before the next: what was started later may use
// what was started earlier until its own end. The cause of ctx's end reaches
// every part, so that a killed node says no goodbye.
func runParts(ctx context.Context, log *slog.Logger, parts []part) error {
	failed := make(chan error, len(parts))
	var started []runningPart
	for _, p := range parts {
		partCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
		r := runningPart{p, stop, make(chan struct{})}
		started = append(started, r)
		go func() {
			defer close(r.done)
			if err := r.run(partCtx); err != nil && !errors.Is(err, context.Canceled) {
				failed <- fmt.Errorf("%s: %w", r.name, err)
			} else if partCtx.Err() == nil {
				failed <- fmt.Errorf("%s ended on its own", r.name)
			}
		}()
	}
	var first error
	select {
	case <-ctx.Done():
	case first = <-failed:
	}
	cause := context.Cause(ctx)
	if first != nil {
		cause = first
	}
	for i := len(started) - 1; i >= 0; i-- {
		started[i].stop(cause)
		select {
		case <-started[i].done:
		case <-time.After(stopTimeout):
			log.Error("a part of the node did not stop in time", "part", started[i].name, "waitedSeconds", stopTimeout.Seconds())
		}
	}
	return first
}
