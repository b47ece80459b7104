package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skein/mesh/ident"
	"skein/mesh/wire"
	"skein/node/gateway/view"
)

func TestLoginBySignature(t *testing.T) {
	for name, at := range map[string]func(*world) *Service{
		"at a voter":     func(w *world) *Service { return w.a },
		"at a non-voter": func(w *world) *Service { return w.other },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			session := w.login(t, at(w))
			if !slices.Equal(session.Scopes, []string{"viewer", "operator"}) {
				t.Fatalf("session %+v", session)
			}
			if _, err := w.b.Verify(session.Token); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWrongSignedLoginsAreRefused(t *testing.T) {
	mallory := newKey(t)
	for name, change := range map[string]func(w *world, l *view.Login){
		"somebody else's key":  func(w *world, l *view.Login) { *l = view.SignLogin(mallory, w.info(t, w.a), "anna") },
		"unknown person":       func(w *world, l *view.Login) { *l = view.SignLogin(w.anna, w.info(t, w.a), "bert") },
		"changed person":       func(w *world, l *view.Login) { w.put("bert", mallory, "admin"); l.Person = "bert" },
		"changed nonce":        func(w *world, l *view.Login) { l.Nonce += "x" },
		"no signature":         func(w *world, l *view.Login) { l.Signature = nil },
		"no time":              func(w *world, l *view.Login) { l.At = nil },
		"no issuer":            func(w *world, l *view.Login) { l.Issuer = "" },
		"issuer is no node":    func(w *world, l *view.Login) { l.Issuer = "../../etc" },
		"issuer is no voter":   func(w *world, l *view.Login) { l.Issuer = w.other.self },
		"redirected to b":      func(w *world, l *view.Login) { l.Issuer = w.b.self },
		"signed for a fleet b": func(w *world, l *view.Login) { *l = otherFleet(t, w) },
		"changed time": func(w *world, l *view.Login) {
			later := l.At.Add(time.Second)
			l.At = &later
		},
		"short nonce": func(w *world, l *view.Login) { l.Nonce = "short" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := view.SignLogin(w.anna, w.info(t, w.a), "anna")
			change(w, &l)
			_, err := w.a.Login(t.Context(), l)
			refused(t, err, 401, "unauthenticated")
		})
	}
}

func otherFleet(t *testing.T, w *world) view.Login {
	info := w.info(t, w.a)
	info.FleetID = ident.FleetIDOf(newKey(t).Public())
	return view.SignLogin(w.anna, info, "anna")
}

func TestALoginIsOneOfTwoKinds(t *testing.T) {
	w := newWorld(t)
	l := view.SignLogin(w.anna, w.info(t, w.a), "anna")
	l.Code = "code"
	_, err := w.a.Login(t.Context(), l)
	refused(t, err, 422, "invalid")
	_, err = w.a.Login(t.Context(), view.Login{})
	refused(t, err, 422, "invalid")
}

func TestASignedLoginWorksOnce(t *testing.T) {
	w := newWorld(t)
	l := view.SignLogin(w.anna, w.info(t, w.a), "anna")
	if _, err := w.a.Login(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	_, err := w.a.Login(t.Context(), l)
	refused(t, err, 401, "unauthenticated")
	_, err = w.other.Login(t.Context(), l) // forwarded to the same voter
	refused(t, err, 401, "unauthenticated")
	// When the nonce may be forgotten the signature is too old.
	w.pass(2*loginWindow + time.Second)
	_, err = w.a.Login(t.Context(), l)
	refused(t, err, 401, "unauthenticated")
}

func TestTheTimeOfALogin(t *testing.T) {
	for name, c := range map[string]struct {
		off  time.Duration
		good bool
	}{
		"in time":         {0, true},
		"oldest":          {-loginWindow, true},
		"too old":         {-loginWindow - time.Millisecond, false},
		"furthest ahead":  {loginWindow, true},
		"too far ahead":   {loginWindow + time.Millisecond, false},
		"clock never set": {-50 * 365 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			info := w.info(t, w.a)
			info.Now = info.Now.Add(c.off)
			_, err := w.a.Login(t.Context(), view.SignLogin(w.anna, info, "anna"))
			if c.good != (err == nil) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// A full store of nonces refuses: to forget one would allow its replay.
func TestTheNonceStoreIsBounded(t *testing.T) {
	w := newWorld(t)
	first := view.SignLogin(w.anna, w.info(t, w.a), "anna")
	if _, err := w.a.Login(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < maxNonces; i++ {
		if w.a.nonces.add(strconv.Itoa(i), struct{}{}, w.now, w.now.Add(time.Minute)) != ok {
			t.Fatalf("full after %d of %d", i, maxNonces)
		}
	}
	_, err := w.a.Login(t.Context(), view.SignLogin(w.anna, w.info(t, w.a), "anna"))
	refused(t, err, 503, "busy")
	_, err = w.a.Login(t.Context(), first)
	refused(t, err, 401, "unauthenticated")
	w.pass(time.Minute)
	w.login(t, w.a) // the others have ended
}

func TestACodeLogsInOnceAtAnyNode(t *testing.T) {
	for name, at := range map[string]func(*world) *Service{
		"at its issuer":        func(w *world) *Service { return w.a },
		"at another voter":     func(w *world) *Service { return w.b },
		"at another non-voter": func(w *world) *Service { return w.other },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			token := w.login(t, w.a).Token
			code, err := w.a.NewCode(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(code.Code, string(w.a.self)+".") || !code.ExpiresAt.Equal(w.now.Add(CodeTTL)) {
				t.Fatalf("code %+v", code)
			}
			session, err := at(w).Login(t.Context(), view.Login{Code: code.Code})
			if err != nil {
				t.Fatal(err)
			}
			if session.Person != "anna" || !slices.Equal(session.Scopes, []string{"viewer", "operator"}) {
				t.Fatalf("session %+v", session)
			}
			_, err = at(w).Login(t.Context(), view.Login{Code: code.Code})
			refused(t, err, 401, "unauthenticated")
		})
	}
}

func TestOfManyThatRaceForACodeOneWins(t *testing.T) {
	w := newWorld(t)
	for range 20 {
		code, err := w.a.IssueCode("anna", []string{"viewer"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		nodes := []*Service{w.a, w.b, w.other}
		var group sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 12 {
			group.Go(func() {
				if _, err := nodes[i%3].Login(t.Context(), view.Login{Code: code.Code}); err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		group.Wait()
		if won != 1 {
			t.Fatalf("%d logins with one code", won)
		}
	}
}

func TestACodeEnds(t *testing.T) {
	w := newWorld(t)
	code, err := w.a.IssueCode("anna", []string{"viewer"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	_, err = w.a.Login(t.Context(), view.Login{Code: code.Code})
	refused(t, err, 401, "unauthenticated")
}

func TestACodeIsWorthNoMoreThanThePersonIs(t *testing.T) {
	w := newWorld(t)
	issue := func() view.Login {
		code, err := w.a.IssueCode("anna", []string{"viewer", "operator"}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return view.Login{Code: code.Code}
	}
	l := issue()
	w.put("anna", w.anna, "operator", "admin")
	session, err := w.a.Login(t.Context(), l)
	if err != nil || !slices.Equal(session.Scopes, []string{"operator"}) {
		t.Fatalf("session %+v, %v", session, err)
	}
	l = issue()
	w.put("anna", w.anna) // removed
	_, err = w.a.Login(t.Context(), l)
	refused(t, err, 401, "unauthenticated")
}

func TestCodesOfStrangersAskNobody(t *testing.T) {
	w := newWorld(t)
	for _, code := range []string{"x", ".", string(newKey(t).ID()) + ".secret", string(w.b.self), string(w.other.self) + ".secret", strings.Repeat(".", 5000)} {
		_, err := w.a.Login(t.Context(), view.Login{Code: code})
		refused(t, err, 401, "unauthenticated")
	}
	if n := w.opened.Load(); n != 1 { // only the one that names the voter b
		t.Fatalf("%d streams were opened for codes that no voter made, want 1", n)
	}
}

func TestIssuingCodes(t *testing.T) {
	w := newWorld(t)
	_, err := w.a.NewCode(t.Context(), "no token")
	refused(t, err, 401, "unauthenticated")
	_, err = w.other.NewCode(t.Context(), "no token") // refused by the voter it is passed to
	refused(t, err, 401, "unauthenticated")
	_, err = w.other.IssueCode("anna", nil, time.Minute)
	refused(t, err, 503, "unreachable")
	for _, ttl := range []time.Duration{0, -time.Second, maxCodeTTL + 1} {
		_, err = w.a.IssueCode("anna", []string{"viewer"}, ttl)
		refused(t, err, 422, "invalid")
	}
	token := w.login(t, w.a).Token
	code, err := w.other.NewCode(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.b.Login(t.Context(), view.Login{Code: code.Code}); err != nil {
		t.Fatal(err)
	}
	for i := range maxCodes {
		if _, err := w.a.IssueCode("anna", []string{"viewer"}, time.Minute); err != nil {
			t.Fatalf("code %d of %d: %v", i+1, maxCodes, err)
		}
	}
	_, err = w.a.IssueCode("anna", []string{"viewer"}, time.Minute)
	refused(t, err, 503, "busy")
	w.pass(time.Minute)
	if _, err := w.a.IssueCode("anna", []string{"viewer"}, time.Minute); err != nil {
		t.Fatalf("ended codes still take room: %v", err)
	}
}

func TestANonVoterAsksTheNextVoter(t *testing.T) {
	w := newWorld(t)
	w.behave(w.a, nil)
	if info := w.info(t, w.other); info.Issuer != w.b.self || info.FleetID != w.fleet {
		t.Fatalf("info %+v", info)
	}
	w.behave(w.b, nil)
	_, err := w.other.Info(t.Context())
	refused(t, err, 503, "unreachable")
	l := view.SignLogin(w.anna, view.LoginInfo{FleetID: w.fleet, Issuer: w.a.self, Now: w.now}, "anna")
	_, err = w.other.Login(t.Context(), l)
	refused(t, err, 503, "unreachable")
}

func TestADemotedVoterIssuesNothing(t *testing.T) {
	w := newWorld(t)
	l := view.SignLogin(w.anna, w.info(t, w.a), "anna")
	w.demote(w.a)
	_, err := w.a.Login(t.Context(), l)
	refused(t, err, 503, "unreachable")
	if info := w.info(t, w.a); info.Issuer != w.b.self {
		t.Fatalf("a demoted voter names %s as issuer", info.Issuer)
	}
}

// A voter that answers nonsense, nothing, or something else must not hang or
// confuse the node that asked.
func TestVotersThatMisbehave(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"closes": func(c net.Conn) { c.Close() },
		"says nothing": func(c net.Conn) {
			io.Copy(io.Discard, c)
			c.Close()
		},
		"nonsense": func(c net.Conn) {
			wire.ReadFrame(c, wire.MaxControl)
			wire.WriteFrame(c, []byte("nonsense"), wire.MaxControl)
			c.Close()
		},
		"answers another question": func(c net.Conn) {
			wire.ReadFrame(c, wire.MaxControl)
			wire.WriteJSON(c, answer{Session: &view.Session{Token: "t"}}, wire.MaxControl)
			c.Close()
		},
		"announces 2 GB": func(c net.Conn) {
			wire.ReadFrame(c, wire.MaxControl)
			c.Write([]byte{0x7f, 0xff, 0xff, 0xff})
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.behave(w.a, answer)
				w.behave(w.b, answer)
				began := time.Now()
				_, err := w.other.Info(t.Context())
				refused(t, err, 503, "unreachable")
				if d := time.Since(began); d > askTimeout {
					t.Fatalf("took %v", d)
				}
			})
		})
	}
}

func TestAForwardedQuestionThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		near, far := net.Pipe()
		defer near.Close()
		began := time.Now()
		w.a.Serve(t.Context(), "slow", far)
		if d := time.Since(began); d != askTimeout {
			t.Fatalf("waited %v for a question, want %v", d, askTimeout)
		}
	})
}

func TestAFloodOfForwardedLoginsIsSlowed(t *testing.T) {
	w := newWorld(t)
	busy := 0
	for range triesBurst + 10 {
		_, err := w.other.Login(t.Context(), view.Login{Code: string(w.a.self) + ".guess"})
		if p, is := errors.AsType[*view.Problem](err); is && p.Code == "rate_limited" {
			busy++
		}
	}
	if busy != 10 {
		t.Fatalf("%d of the last 10 were slowed down", busy)
	}
}

// FuzzServe: a member may send anything on a login stream.
func FuzzServe(f *testing.F) {
	for _, q := range []question{{Info: true}, {CodeFor: "x"}, {Login: &view.Login{Code: "a.b"}}, {}} {
		text, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		s := New(Config{Key: w.a.key, Fleet: w.fleet, Directory: w, Forwarder: caller{w, w.a.self}, Now: w.clock, Log: slog.New(slog.DiscardHandler)})
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(t.Context(), "fuzz", far)
		}()
		if err := wire.WriteFrame(near, text, len(text)); err == nil {
			got, err := wire.ReadFrame(near, wire.MaxControl)
			if err == nil && bytes.Contains(got, []byte(`"token"`)) {
				t.Fatalf("%q was answered with a token: %q", text, got)
			}
		}
		near.Close()
		<-done
	})
}

// A signature is good at the voter it was made for, whoever carries it where.
func TestASignedLoginIsForOneVoter(t *testing.T) {
	w := newWorld(t)
	forB := view.SignLogin(w.anna, w.info(t, w.b), "anna")
	if _, err := w.b.Login(t.Context(), forB); err != nil {
		t.Fatal(err)
	}
	_, err := w.other.ask(t.Context(), w.a.self, question{Login: &forB})
	refused(t, err, 401, "unauthenticated")
}
