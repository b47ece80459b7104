package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

// diary records in which order parts end.
type diary struct {
	mu    sync.Mutex
	ended []string
}

func (d *diary) part(name string) part {
	return part{name, func(ctx context.Context) error {
		<-ctx.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ended = append(d.ended, name)
		return nil
	}}
}

func TestPartsStopInReverseOrder(t *testing.T) {
	var d diary
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runParts(ctx, slog.New(slog.DiscardHandler), []part{d.part("disk"), d.part("mesh"), d.part("face")}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"face", "mesh", "disk"}; !slices.Equal(d.ended, want) {
		t.Fatalf("stopped in order %v, want %v", d.ended, want)
	}
}

func TestAFailingPartEndsTheOthersAndIsNamed(t *testing.T) {
	var d diary
	boom := errors.New("disk is gone")
	err := runParts(t.Context(), slog.New(slog.DiscardHandler), []part{
		d.part("mesh"),
		{"log", func(context.Context) error { return boom }},
	})
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "log: ") {
		t.Fatalf("got %v, want the failing part's error under its name", err)
	}
	if !slices.Equal(d.ended, []string{"mesh"}) {
		t.Fatalf("the other part did not end: %v", d.ended)
	}
}

func TestPartsLearnWhyTheyStop(t *testing.T) {
	killed := errors.New("killed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(killed)
	var cause error
	err := runParts(ctx, slog.New(slog.DiscardHandler), []part{{"mesh", func(ctx context.Context) error {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return nil
	}}})
	if err != nil || !errors.Is(cause, killed) {
		t.Fatalf("err %v, cause %v; want no error and the cause of the parent", err, cause)
	}
}
