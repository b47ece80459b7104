package auth

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A token that was checked before is worth what it is worth now, in every
// respect that can change.
func TestVerifiedBefore(t *testing.T) {
	setUp := func(t *testing.T) (*world, string) {
		w := newWorld(t)
		token := w.login(t, w.a).Token
		for range 2 {
			if _, err := w.b.Verify(token); err != nil {
				t.Fatal(err)
			}
		}
		if _, known := w.b.verified.get(token); !known {
			t.Fatal("a good token is not remembered")
		}
		return w, token
	}
	bad := map[string]func(w *world){
		"it has expired":              func(w *world) { w.pass(TokenTTL + leeway) },
		"its issuer is no voter":      func(w *world) { w.demote(w.a) },
		"its issuer has another key":  func(w *world) { w.mu.Lock(); w.voters[w.a.self] = newKey(t).Public(); w.mu.Unlock() },
		"its person was removed":      func(w *world) { w.put("anna", w.anna) },
		"its person may other things": func(w *world) { w.put("anna", w.anna, "admin") },
	}
	for name, change := range bad {
		t.Run(name, func(t *testing.T) {
			w, token := setUp(t)
			change(w)
			_, err := w.b.Verify(token)
			refused(t, err, 401, "unauthenticated")
		})
	}
	t.Run("its person may less", func(t *testing.T) {
		w, token := setUp(t)
		w.put("anna", w.anna, "viewer")
		if p, err := w.b.Verify(token); err != nil || !slices.Equal(p.Scopes, []string{"viewer"}) {
			t.Errorf("%+v %v", p, err)
		}
		w.put("anna", w.anna, "viewer", "operator", "admin")
		if p, err := w.b.Verify(token); err != nil || !slices.Equal(p.Scopes, []string{"viewer", "operator"}) {
			t.Errorf("given back: %+v %v", p, err)
		}
	})
	t.Run("one letter is another", func(t *testing.T) {
		w, token := setUp(t)
		last := byte('A')
		if token[len(token)-10] == 'A' {
			last = 'B'
		}
		forged := token[:len(token)-10] + string(last) + token[len(token)-9:]
		_, err := w.b.Verify(forged)
		refused(t, err, 401, "unauthenticated")
		if _, known := w.b.verified.get(forged); known {
			t.Error("a forged token is remembered")
		}
	})
}

// What is remembered has a bound, and who is forgotten is checked anew.
func TestVerifiedIsBounded(t *testing.T) {
	w := newWorld(t)
	token := w.login(t, w.a).Token
	if _, err := w.b.Verify(token); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxVerified {
		w.b.verified.put(fmt.Sprint("token ", i), seen{who: Principal{Expires: time.Now()}})
	}
	if n := len(w.b.verified.tokens); n != maxVerified {
		t.Errorf("%d tokens are remembered, at most %d may be", n, maxVerified)
	}
	if _, err := w.b.Verify(token); err != nil {
		t.Error(err)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	key := w.a.key
	token, _, err := sign(key, w.fleet, "anna", []string{"viewer"}, w.now, "id")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := w.a.Verify(token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.a.verified.tokens = nil
			if _, err := w.a.Verify(token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
