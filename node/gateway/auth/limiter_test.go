package auth

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiterSlowsWhoFails(t *testing.T) {
	l, now := NewLimiter(), time.Unix(1e9, 0)
	for i := range failuresBurst {
		if !l.Allow("a", now) {
			t.Fatalf("refused after %d failures, want %d allowed", i, failuresBurst)
		}
		l.Failed("a", now)
	}
	if l.Allow("a", now) {
		t.Fatal("still allowed after the burst of failures")
	}
	if !l.Allow("b", now) {
		t.Fatal("another remote pays for it")
	}
	if !l.Allow("a", now.Add(2*time.Second)) { // one failure is forgiven every two seconds
		t.Fatal("never allowed again")
	}
}

func TestLimiterLetsScriptsLogIn(t *testing.T) {
	l, now := NewLimiter(), time.Unix(1e9, 0)
	for i := range 1000 { // ten a second, all good
		now = now.Add(100 * time.Millisecond)
		if !l.Allow("a", now) {
			t.Fatalf("login %d was refused", i)
		}
	}
	refused := 0
	for range 1000 { // all at once
		if !l.Allow("a", now) {
			refused++
		}
	}
	if refused < 1000-triesBurst {
		t.Fatalf("only %d of 1000 at once were refused", refused)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := NewLimiter(), time.Unix(1e9, 0)
	for range failuresBurst {
		l.Failed("attacker", now)
	}
	for i := range maxRemotes * 3 {
		l.Allow(fmt.Sprint(i), now)
		if i%100 == 0 && l.Allow("attacker", now) {
			t.Fatal("a remote that keeps trying was forgotten")
		}
	}
	if len(l.remotes) != maxRemotes || l.recent.Len() != maxRemotes {
		t.Fatalf("%d and %d remotes are remembered, want %d", len(l.remotes), l.recent.Len(), maxRemotes)
	}
}

func TestRemoteKey(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:4242":              "192.0.2.7",
		"[::ffff:192.0.2.7]:4242":     "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:4242": "2001:db8:1:2::/64",
		"[2001:db8:1:2:9:9:9:9]:1":    "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":           "fe80::/64",
		"@":                           "unknown",
		"":                            "unknown",
	} {
		if got := RemoteKey(addr); got != want {
			t.Errorf("key of %q is %q, want %q", addr, got, want)
		}
	}
}
