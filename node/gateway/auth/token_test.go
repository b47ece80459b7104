package auth

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
)

func TestATokenIsGoodAtEveryNode(t *testing.T) {
	w := newWorld(t)
	session := w.login(t, w.a)
	if !session.ExpiresAt.Equal(w.now.Add(TokenTTL)) || session.Person != "anna" {
		t.Fatalf("session %+v", session)
	}
	for name, s := range map[string]*Service{"issuer": w.a, "other voter": w.b, "non-voter": w.other} {
		p, err := s.Verify(session.Token)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Person != "anna" || !slices.Equal(p.Scopes, []string{"viewer", "operator"}) || p.Issuer != w.a.self || p.Local {
			t.Fatalf("%s: principal %+v", name, p)
		}
		if !p.MayRead() || !p.May("operator") || p.May("admin") {
			t.Fatalf("%s: scopes of %+v are wrong", name, p)
		}
		if err := s.Still(p); err != nil {
			t.Fatalf("%s: still: %v", name, err)
		}
	}
}

// forgery is a token put together by hand.
type forgery struct {
	header map[string]any
	claims map[string]any
	sign   func(text string) []byte
}

func (f forgery) String() string {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := part(f.header) + "." + part(f.claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(f.sign(text))
}

// genuine is the forgery of a token that is right in every respect.
func (w *world) genuine() forgery {
	key := w.a.key
	return forgery{
		header: map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": string(key.ID())},
		claims: map[string]any{
			"iss": string(key.ID()), "sub": "anna", "aud": []string{string(w.fleet)}, "scp": []string{"viewer"},
			"iat": w.now.Unix(), "exp": w.now.Add(time.Hour).Unix(),
		},
		sign: func(text string) []byte { return signWith(key, text) },
	}
}

func signWith(key ident.Key, text string) []byte {
	signature, err := key.Private().Sign(rand.Reader, []byte(text), crypto.Hash(0))
	if err != nil {
		panic(err)
	}
	return signature
}

// forgedKeys are tokens that somebody else signed, or that name another key.
func forgedKeys(t *testing.T, w *world, attacker ident.Key) map[string]func(*forgery) {
	public := []byte(w.a.key.Public())
	withAttackersKey := func(f *forgery) { f.sign = func(text string) []byte { return signWith(attacker, text) } }
	none := func(alg string) func(*forgery) {
		return func(f *forgery) {
			f.header["alg"] = alg
			f.sign = func(string) []byte { return nil }
		}
	}
	return map[string]func(*forgery){
		"alg none":          none("none"),
		"alg None":          none("None"),
		"alg NONE":          none("NONE"),
		"no alg":            func(f *forgery) { delete(f.header, "alg") },
		"alg is no text":    func(f *forgery) { f.header["alg"] = 7 },
		"signature missing": func(f *forgery) { f.sign = func(string) []byte { return nil } },
		"HS256 with the public key as secret": func(f *forgery) {
			f.header["alg"] = "HS256"
			f.sign = func(text string) []byte {
				mac := hmac.New(sha256.New, public)
				mac.Write([]byte(text))
				return mac.Sum(nil)
			}
		},
		"RS256 with an own key": func(f *forgery) {
			f.header["alg"] = "RS256"
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				t.Fatal(err)
			}
			f.sign = func(text string) []byte {
				sum := sha256.Sum256([]byte(text))
				signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
				if err != nil {
					t.Fatal(err)
				}
				return signature
			}
		},
		"foreign key under a voter's kid": withAttackersKey,
		"embedded jwk": func(f *forgery) {
			withAttackersKey(f)
			f.header["jwk"] = map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(attacker.Public())}
		},
		"embedded jwk, genuine signature": func(f *forgery) { f.header["jwk"] = map[string]string{"kty": "OKP"} },
		"jku":                             func(f *forgery) { f.header["jku"] = "http://evil.example/keys" },
		"crit":                            func(f *forgery) { f.header["crit"] = []string{"exp"} },
		"kid of the attacker": func(f *forgery) {
			withAttackersKey(f)
			f.header["kid"], f.claims["iss"] = string(attacker.ID()), string(attacker.ID())
		},
		"kid of a member that is no voter": func(f *forgery) {
			f.header["kid"], f.claims["iss"] = string(w.other.self), string(w.other.self)
			f.sign = func(text string) []byte { return signWith(w.other.key, text) }
		},
		"kid traversal":               func(f *forgery) { f.header["kid"] = "../../../../dev/null" },
		"kid traversal before the id": func(f *forgery) { f.header["kid"] = "../" + string(w.a.self) },
		"kid with a zero byte":        func(f *forgery) { f.header["kid"] = string(w.a.self) + "\x00" },
		"kid is a list":               func(f *forgery) { f.header["kid"] = []string{string(w.a.self)} },
		"no kid":                      func(f *forgery) { delete(f.header, "kid") },
	}
}

// forgedClaims are tokens that say what their issuer may not say.
func forgedClaims(w *world, attacker ident.Key) map[string]func(*forgery) {
	return map[string]func(*forgery){
		"issuer is another voter": func(f *forgery) { f.claims["iss"] = string(w.b.self) },
		"no issuer":               func(f *forgery) { delete(f.claims, "iss") },
		"expired":                 func(f *forgery) { f.claims["exp"] = w.now.Add(-leeway - time.Second).Unix() },
		"no expiry":               func(f *forgery) { delete(f.claims, "exp") },
		"good for longer than a voter may give": func(f *forgery) {
			f.claims["exp"] = w.now.Add(TokenTTL + time.Second).Unix()
		},
		"no time of issue":             func(f *forgery) { delete(f.claims, "iat") },
		"not yet good":                 func(f *forgery) { f.claims["nbf"] = w.now.Add(leeway + time.Minute).Unix() },
		"another fleet":                func(f *forgery) { f.claims["aud"] = string(ident.FleetIDOf(attacker.Public())) },
		"no fleet":                     func(f *forgery) { delete(f.claims, "aud") },
		"unknown person":               func(f *forgery) { f.claims["sub"] = "mallory" },
		"no person":                    func(f *forgery) { delete(f.claims, "sub") },
		"no scopes":                    func(f *forgery) { delete(f.claims, "scp") },
		"scopes the log does not give": func(f *forgery) { f.claims["scp"] = []string{"admin"} },
		"claims are null":              func(f *forgery) { f.claims = nil },
	}
}

// Every way of testing.md to make a token that nobody issued.
func TestForgedTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	if _, err := w.b.Verify(w.genuine().String()); err != nil {
		t.Fatalf("the genuine token is refused, so the others prove nothing: %v", err)
	}
	attacker := newKey(t)
	all := forgedKeys(t, w, attacker)
	maps.Copy(all, forgedClaims(w, attacker))
	for name, change := range all {
		t.Run(name, func(t *testing.T) {
			f := w.genuine()
			change(&f)
			_, err := w.b.Verify(f.String())
			refused(t, err, 401, "unauthenticated")
		})
	}
}

func TestMangledTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	token := w.genuine().String()
	parts := strings.Split(token, ".")
	other := w.genuine()
	other.claims["scp"] = []string{"viewer", "operator"}
	for name, text := range map[string]string{
		"empty":                      "",
		"a megabyte of dots":         strings.Repeat(".", 1<<20),
		"4 KB of dots":               strings.Repeat(".", maxTokenBytes),
		"too long":                   token + strings.Repeat("A", maxTokenBytes),
		"two parts":                  parts[0] + "." + parts[1],
		"four parts":                 token + ".x",
		"claims of another token":    parts[0] + "." + strings.Split(other.String(), ".")[1] + "." + parts[2],
		"padding":                    token + "==",
		"signature bits that differ": parts[0] + "." + parts[1] + "." + parts[2][:len(parts[2])-1] + next(parts[2][len(parts[2])-1]),
		"header is no object":        base64.RawURLEncoding.EncodeToString([]byte(`null`)) + "." + parts[1] + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.b.Verify(text)
			refused(t, err, 401, "unauthenticated")
		})
	}
}

// next is the base64url character after c, which changes only bits that a
// decoder that is not strict ignores.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}

func TestATokenDoesNotOutliveWhatTheLogSays(t *testing.T) {
	w := newWorld(t)
	token := w.login(t, w.a).Token
	p, err := w.b.Verify(token)
	if err != nil {
		t.Fatal(err)
	}

	w.put("anna", w.anna, "viewer")
	narrowed, err := w.b.Verify(token)
	if err != nil || !slices.Equal(narrowed.Scopes, []string{"viewer"}) {
		t.Fatalf("after losing a scope: %+v, %v", narrowed, err)
	}
	w.put("anna", w.anna, "admin", "viewer", "operator")
	if widened, err := w.b.Verify(token); err != nil || widened.May("admin") {
		t.Fatalf("a token gained a scope it was not issued with: %+v, %v", widened, err)
	}

	w.put("anna", w.anna)
	_, err = w.b.Verify(token)
	refused(t, err, 401, "unauthenticated")
	refused(t, w.b.Still(p), 401, "unauthenticated")
	w.put("anna", w.anna, "viewer")
	if err := w.b.Still(p); err != nil {
		t.Fatal(err)
	}

	w.demote(w.a)
	_, err = w.b.Verify(token)
	refused(t, err, 401, "unauthenticated")
	refused(t, w.b.Still(p), 401, "unauthenticated")
}

func TestATokenExpires(t *testing.T) {
	w := newWorld(t)
	token := w.login(t, w.a).Token
	p, err := w.a.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(TokenTTL + leeway - time.Second)
	if _, err := w.a.Verify(token); err != nil {
		t.Fatalf("within leeway: %v", err)
	}
	refused(t, w.a.Still(p), 401, "unauthenticated") // no leeway for who is connected: her clock is ours
	w.pass(time.Second)
	_, err = w.a.Verify(token)
	refused(t, err, 401, "unauthenticated")
}

func TestTheLocalOwnerMayReadOnly(t *testing.T) {
	w := newWorld(t)
	p := Principal{Local: true}
	if !p.MayRead() || p.May("viewer") || p.May("admin") || w.a.Still(p) != nil {
		t.Fatalf("local owner %+v", p)
	}
	if (Principal{}).MayRead() {
		t.Fatal("nobody may read")
	}
}

// FuzzVerify: nothing panics, and what is accepted is the one token that exists.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	genuine := w.genuine().String()
	f.Add(genuine)
	f.Add(strings.Repeat(".", 100))
	f.Add("e30.e30.")
	f.Add("bnVsbA.bnVsbA.bnVsbA")
	f.Add(strings.Replace(genuine, ".", "..", 1))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := w.b.Verify(token); err == nil && token != genuine {
			t.Fatalf("accepted %q", token)
		}
	})
}

// A node that has just started and lags says so; it does not log people out. What
// it can judge, it judges.
func TestANodeThatLagsCallsNoTokenBad(t *testing.T) {
	w := newWorld(t)
	token := w.login(t, w.a).Token
	forged := w.genuine()
	forged.sign = func(text string) []byte { return signWith(newKey(t), text) }
	lags := true
	late := New(Config{Key: newKey(t), Fleet: w.fleet, Directory: w, Ready: func() bool { return !lags }, Now: w.clock, Log: w.a.log})
	if _, err := late.Verify(token); err != nil {
		t.Fatalf("a token that it can judge: %v", err)
	}
	_, err := late.Verify(forged.String())
	refused(t, err, 401, "unauthenticated")

	w.put("anna", w.anna)
	_, err = late.Verify(token)
	refused(t, err, 503, "not_ready")
	w.put("anna", w.anna, "viewer")
	w.demote(w.a)
	_, err = late.Verify(token)
	refused(t, err, 503, "not_ready")
	lags = false
	_, err = late.Verify(token)
	refused(t, err, 401, "unauthenticated")
}
