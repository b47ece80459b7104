package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The test program is its own member.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == Role {
		if err := Serve(os.Args[2], startEcho); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// echo answers with what it is given.
type echo struct{}

func startEcho(_ context.Context, s Spec) (Member, error) {
	if s.Variant == "broken" {
		return nil, errors.New("it is broken")
	}
	return echo{}, nil
}

// Obey implements Member.
func (echo) Obey(_ context.Context, order string, argument json.RawMessage) (any, error) {
	switch order {
	case "echo":
		return argument, nil
	case "die":
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(3)
	case "hang":
		select {}
	}
	return nil, fmt.Errorf("no order %q", order)
}

// Close implements Member.
func (echo) Close() error { return nil }

func start(t *testing.T, s Spec) *Process {
	t.Helper()
	p, err := Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestOrders(t *testing.T) {
	p := start(t, Spec{System: "echo"})
	var got string
	if err := p.Ask(t.Context(), "echo", "hello", &got); err != nil || got != "hello" {
		t.Fatalf("%q %v", got, err)
	}
	if err := p.Ask(t.Context(), "jump", nil, nil); err == nil || !strings.Contains(err.Error(), `no order "jump"`) {
		t.Fatalf("unknown order: %v", err)
	}
	path := t.TempDir() + "/cpu.prof"
	for _, o := range [][2]string{{"profile", path}, {"unprofile", ""}} {
		if err := p.Ask(t.Context(), o[0], o[1], nil); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Fatalf("profile: %v", err)
	}
	u, err := UsageOf(p.PID)
	if err != nil || u.RSS < 1<<20 || u.Anonymous <= 0 || u.Anonymous > u.RSS {
		t.Fatalf("%+v %v", u, err)
	}
	p.End()
	if _, err := UsageOf(p.PID); err == nil {
		t.Fatal("the process is still there")
	}
}

func TestWhatGoesWrongIsSaid(t *testing.T) {
	if _, err := Start(t.Context(), Spec{System: "echo", Variant: "broken"}); err == nil || !strings.Contains(err.Error(), "it is broken") {
		t.Fatalf("a member that does not start: %v", err)
	}
	p := start(t, Spec{System: "echo"})
	if err := p.Ask(t.Context(), "die", nil, nil); err == nil || !strings.Contains(err.Error(), "last words") {
		t.Fatalf("a member that dies: %v", err)
	}
	p = start(t, Spec{System: "echo"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Ask(ctx, "hang", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a member that hangs: %v", err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		for _, port := range p {
			if port == 0 || seen[port] {
				t.Fatalf("%v", ports)
			}
			seen[port] = true
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	w := &tail{}
	for i := range 2000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	if len(w.text) != tailBytes || !strings.HasSuffix(w.String(), "line 1999") {
		t.Fatalf("%d bytes, %q", len(w.text), w.String()[:40])
	}
}
