package trial

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Lots draws from SKEIN_SEED, a decimal number, or from a seed of its own. A
// failure says which, so that the same is drawn again.
func Lots(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SKEIN_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SKEIN_SEED: %v; give a number", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to draw the same lots again: SKEIN_SEED=%d go test -run '^%s$'", seed, t.Name())
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// Soak is long with SKEIN_SOAK=1, else short: a count or a time.
func Soak[T int | time.Duration](short, long T) T {
	if os.Getenv("SKEIN_SOAK") == "1" {
		return long
	}
	return short
}

// Pass lets time pass. It is for a fault that has to last; nothing may rely on
// what happens meanwhile.
func Pass(t testing.TB, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
