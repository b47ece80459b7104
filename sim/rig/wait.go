package rig

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pollInterval is how often a condition is looked at.
const pollInterval = 20 * time.Millisecond

// Wait asks ok until it returns nil and gives back how long that took. After
// limit it fails the test with what was awaited and the last error.
func Wait(t testing.TB, limit time.Duration, what string, ok func() error) time.Duration {
	t.Helper()
	start := time.Now()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := ok()
		elapsed := time.Since(start)
		switch {
		case err == nil:
			return elapsed
		case elapsed >= limit:
			t.Fatalf("waited %v for: %s; last: %v", elapsed.Round(time.Millisecond), what, err)
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatalf("test ended while waiting for: %s; last: %v", what, err)
		}
	}
}

// ErrNotYet is for conditions of Wait that have nothing better to say.
var ErrNotYet = errors.New("not yet")

// Skein is the path of the program under test: SKEIN_BIN if that is set (`make
// test` sets it to what it has just built), else built now.
func Skein(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SKEIN_BIN"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("SKEIN_BIN: %v; run `make build`, or unset it", err)
		}
		return path
	}
	return Build(t)
}

// Build builds the program, with build tags for one that is wrong on purpose.
func Build(t testing.TB, tags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "skein")
	cmd := exec.Command("go", "build", "-tags", strings.Join(tags, ","), "-o", path, "skein/node/cmd/skein")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build skein: %v\n%s", err, out)
	}
	return path
}
