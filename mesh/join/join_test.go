package join

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t testing.TB) ident.Key {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fleet has a root, an enrolment key and one member that serves Protocol.
type fleet struct {
	root, enrolment, key ident.Key
	host                 *link.Host
}

func (f *fleet) chainOf(pub ed25519.PublicKey) ident.Chain {
	return ident.NewChain(ident.FleetIDOf(f.root.Public()), pub, false, time.Now(), f.root, nil)
}

func (f *fleet) endpoint() ident.Endpoint {
	return ident.Endpoint{
		ID: f.key.ID(), PublicKey: f.key.Public(),
		Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, LinkPort: f.host.Port(),
	}
}

func (f *fleet) file() *ident.FleetFile {
	file := ident.NewFleetFile("geese", f.root.Public(), f.enrolment)
	return &file
}

func newHost(t *testing.T, key ident.Key, root ed25519.PublicKey) *link.Host {
	t.Helper()
	h, err := link.New(link.Config{
		Key: key, Root: root, Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Chain: func() ident.Chain { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// silentFleet has a member that serves nothing yet.
func silentFleet(t *testing.T) *fleet {
	f := &fleet{root: newKey(t), enrolment: newKey(t), key: newKey(t)}
	f.host = newHost(t, f.key, f.root.Public())
	return f
}

// newFleet has a member that serves with the given authority.
func newFleet(t *testing.T, a authorityFunc) *fleet {
	f := silentFleet(t)
	f.serve(a, func(*ServerConfig) {})
	return f
}

func (f *fleet) serve(a authorityFunc, change func(*ServerConfig)) {
	cfg := ServerConfig{Chain: func() ident.Chain { return f.chainOf(f.key.Public()) }}
	change(&cfg)
	f.host.HandleOpen(Protocol, Serve(a, cfg))
}

type authorityFunc func(r Request, nonce []byte) (Grant, error)

func (fn authorityFunc) Admit(_ context.Context, _ ident.NodeID, r Request, nonce []byte) (Grant, error) {
	return fn(r, nonce)
}

// never is an authority that must not be asked.
func never(t *testing.T) authorityFunc {
	return func(r Request, _ []byte) (Grant, error) {
		t.Errorf("the authority was asked: %v", r)
		return Grant{}, errors.New("no")
	}
}

func (f *fleet) grant(r Request) Grant {
	return Grant{
		Chain: f.chainOf(r.PublicKey), FleetName: "geese", Keys: json.RawMessage(`{"epoch":1}`),
		Voters: []ident.Endpoint{f.endpoint()}, LeaderTime: time.Now().UTC().Truncate(time.Millisecond),
	}
}

// robot is an applicant and its host.
type robot struct {
	Applicant
	host *link.Host
}

func newRobot(t *testing.T, c Credential) *robot {
	key := newKey(t)
	return &robot{Applicant{Credential: c, Key: key, Name: "goose-1"}, newHost(t, key, c.Root())}
}

func (r *robot) ask(t *testing.T, e ident.Endpoint) (Grant, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return Ask(ctx, r.host, e, r.Applicant)
}

func wantCode(t *testing.T, err error, code Code) *Refusal {
	t.Helper()
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || refusal.Code != code {
		t.Fatalf("got %v, want a refusal with code %s", err, code)
	}
	if strings.ContainsAny(err.Error(), "\n\x00") {
		t.Fatalf("not one clean line: %q", err)
	}
	return refusal
}

func TestFleetFileGetsAGrant(t *testing.T) {
	var f *fleet
	f = newFleet(t, func(r Request, nonce []byte) (Grant, error) {
		if err := VerifyEnrolment(r, nonce); err != nil {
			return Grant{}, err
		}
		if !r.EnrolmentKey.Equal(f.enrolment.Public()) || len(r.TokenSecret) != 0 || r.Name != "goose-1" {
			t.Errorf("request %+v", r)
		}
		return f.grant(r), nil
	})
	r := newRobot(t, Credential{FleetFile: f.file()})
	g, err := r.ask(t, f.endpoint())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Chain.Verify(f.root.Public()); err != nil || g.Chain[0].Node() != r.Key.ID() {
		t.Fatalf("chain of %s: %v", g.Chain[0].Node(), err)
	}
	if g.FleetName != "geese" || len(g.Voters) != 1 || string(g.Keys) != `{"epoch":1}` || g.LeaderTime.IsZero() {
		t.Fatalf("grant %+v", g)
	}
}

func TestTokenGetsAGrant(t *testing.T) {
	var f *fleet
	var token ident.JoinToken
	f = newFleet(t, func(r Request, _ []byte) (Grant, error) {
		if (ident.JoinToken{Secret: r.TokenSecret}).Hash() != token.Hash() || len(r.EnrolmentKey) != 0 {
			t.Errorf("request %+v", r)
		}
		return f.grant(r), nil
	})
	token = ident.NewJoinToken(f.root.Public())
	typed, err := ident.ParseJoinToken(token.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newRobot(t, Credential{Token: &typed}).ask(t, f.endpoint()); err != nil {
		t.Fatal(err)
	}
}

func TestEveryRefusalArrivesWithCodeAndNextStep(t *testing.T) {
	var refusal error
	f := newFleet(t, func(Request, []byte) (Grant, error) { return Grant{}, refusal })
	for _, code := range []Code{
		CodeTokenUsed, CodeTokenExpired, CodeTokenUnknown, CodeEnrolmentRevoked, CodeRevoked, CodeInvalid, CodeNoLeader, CodeBusy,
	} {
		refusal = &Refusal{code, "it is so", "do this"}
		_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
		got := wantCode(t, err, code)
		if got.Message != "it is so" || got.Next != "do this" {
			t.Fatalf("%s arrived as %+v", code, got)
		}
		if retry := code == CodeNoLeader || code == CodeBusy; got.Retry() != retry {
			t.Fatalf("%s: retry %v", code, got.Retry())
		}
	}
	refusal = fmt.Errorf("wrapped: %w", &Refusal{CodeTokenUsed, "it is so", ""})
	_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
	wantCode(t, err, CodeTokenUsed)
	refusal = errors.New("disk of 10.0.0.3 is full: secret path /x")
	_, err = newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
	if got := wantCode(t, err, CodeBusy); strings.Contains(got.Message, "disk") {
		t.Fatalf("an inner error was shown to a stranger: %s", got.Message)
	}
}

func TestServerOfAnotherFleetLearnsNothing(t *testing.T) {
	f, other := silentFleet(t), silentFleet(t)
	token := ident.NewJoinToken(f.root.Public())
	for name, c := range map[string]Credential{"fleet file": {FleetFile: f.file()}, "token": {Token: &token}} {
		t.Run(name, func(t *testing.T) {
			heard := listenFor(other, other.chainOf(other.key.Public()), time.Now())
			_, err := newRobot(t, c).ask(t, other.endpoint())
			wantCode(t, err, CodeWrongFleet)
			if said := <-heard; len(said) != 0 {
				t.Fatalf("it was sent %q", said)
			}
		})
	}
}

func TestMemberInTheMiddleWithAForeignChainLearnsNothing(t *testing.T) {
	f, middle := silentFleet(t), silentFleet(t)
	// The genuine chain of another member of the right fleet, as anybody can
	// fetch it; and one that claims the right fleet under another root.
	forged := ident.NewChain(ident.FleetIDOf(f.root.Public()), middle.key.Public(), true, time.Now(), middle.root, nil)
	for name, chain := range map[string]ident.Chain{
		"another member's": f.chainOf(f.key.Public()), "forged": forged, "none": nil,
		"too long": make(ident.Chain, ident.MaxChain+1),
	} {
		t.Run(name, func(t *testing.T) {
			heard := listenFor(middle, chain, time.Now())
			_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, middle.endpoint())
			wantCode(t, err, CodeWrongFleet)
			if said := <-heard; len(said) != 0 {
				t.Fatalf("it was sent %q", said)
			}
		})
	}
}

// listenFor serves a challenge with the given chain and clock and then collects
// what the client sends.
func listenFor(f *fleet, chain ident.Chain, clock time.Time) <-chan []byte {
	heard := make(chan []byte, 1)
	f.host.HandleOpen(Protocol, func(_ context.Context, s *link.Stream) {
		wire.WriteJSON(s, challenge{Nonce: make([]byte, nonceBytes), Chain: chain, UnixMillis: clock.UnixMilli()}, challengeMax)
		said, _ := io.ReadAll(s)
		heard <- said
	})
	return heard
}

func TestClockIsComparedBeforeAnythingIsSent(t *testing.T) {
	f := silentFleet(t)
	for name, c := range map[string]struct {
		fleet time.Duration
		says  string
	}{
		"an hour behind": {61 * time.Minute, "61 min behind"},
		"an hour ahead":  {-61 * time.Minute, "61 min ahead of"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := listenFor(f, f.chainOf(f.key.Public()), time.Now().Add(c.fleet))
			_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
			refusal := wantCode(t, err, CodeClockSkew)
			if !strings.Contains(refusal.Message, c.says) || !strings.Contains(refusal.Next, "timedatectl") {
				t.Fatalf("says %q; %q", refusal.Message, refusal.Next)
			}
			if said := <-heard; len(said) != 0 {
				t.Fatalf("it was sent %q", said)
			}
		})
	}
}

func TestClockBounds(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		skew time.Duration
		ok   bool
	}{{0, true}, {MaxSkew, true}, {-MaxSkew, true}, {MaxSkew + time.Millisecond, false}, {-MaxSkew - time.Millisecond, false}} {
		if err := clockOff(at.Add(c.skew), at); (err == nil) != c.ok {
			t.Errorf("skew %s: %v", c.skew, err)
		}
	}
}

func TestClockThatIsNotSetIsRefusedWithoutTheNetwork(t *testing.T) {
	f := newFleet(t, never(t))
	r := newRobot(t, Credential{FleetFile: f.file()})
	r.Now = func() time.Time { return time.Unix(100, 0) }
	nowhere := f.endpoint()
	nowhere.LinkPort = 1
	_, err := r.ask(t, nowhere)
	if refusal := wantCode(t, err, CodeClockSkew); !strings.Contains(refusal.Message, "1970") {
		t.Fatalf("says %q", refusal.Message)
	}
}

func TestCredentialIsExactlyOne(t *testing.T) {
	f := newFleet(t, never(t))
	token := ident.NewJoinToken(f.root.Public())
	for _, c := range []Credential{{}, {FleetFile: f.file(), Token: &token}} {
		r := newRobot(t, Credential{FleetFile: f.file()})
		r.Credential = c
		_, err := r.ask(t, f.endpoint())
		wantCode(t, err, CodeInvalid)
	}
}

func TestSignatureIsOfThisNonceKeyAndName(t *testing.T) {
	enrolment, robot := newKey(t), newKey(t)
	nonce := bytes.Repeat([]byte{7}, nonceBytes)
	file := ident.NewFleetFile("geese", newKey(t).Public(), enrolment)
	signed := func() Request {
		r := Request{PublicKey: robot.Public(), Name: "goose"}
		if err := (Credential{FleetFile: &file}).prove(&r, nonce); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := VerifyEnrolment(signed(), nonce); err != nil {
		t.Fatal(err)
	}
	otherNonce := bytes.Repeat([]byte{8}, nonceBytes)
	if VerifyEnrolment(signed(), otherNonce) == nil {
		t.Error("a signature could be replayed with another nonce")
	}
	if VerifyEnrolment(signed(), nil) == nil || VerifyEnrolment(Request{}, nonce) == nil {
		t.Error("empty input verified")
	}
	for what, change := range map[string]func(*Request){
		"key":           func(r *Request) { r.PublicKey = newKey(t).Public() },
		"name":          func(r *Request) { r.Name = "gander" },
		"enrolment key": func(r *Request) { r.EnrolmentKey = newKey(t).Public() },
		"signature":     func(r *Request) { r.Signature[0] ^= 1 },
		"no signature":  func(r *Request) { r.Signature = nil },
	} {
		r := signed()
		change(&r)
		if VerifyEnrolment(r, nonce) == nil {
			t.Errorf("verified with another %s", what)
		}
	}
}

func TestRequestForAnotherKeyIsRefused(t *testing.T) {
	f := newFleet(t, never(t))
	victim := newKey(t)
	s := rawStream(t, f)
	c, err := readChallenge(s)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{PublicKey: victim.Public(), Name: "victim"}
	if err := (Credential{FleetFile: f.file()}).prove(&r, c.Nonce); err != nil {
		t.Fatal(err)
	}
	if err := wire.WriteJSON(s, r, requestMax); err != nil {
		t.Fatal(err)
	}
	_, err = readAnswer(s)
	wantCode(t, err, CodeInvalid)
}

func rawStream(t *testing.T, f *fleet) *link.Stream {
	t.Helper()
	r := newRobot(t, Credential{FleetFile: f.file()})
	s, err := r.host.OpenStranger(t.Context(), f.endpoint(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Reset() })
	s.SetDeadline(time.Now().Add(10 * time.Second))
	return s
}

func TestNoncesAreFresh(t *testing.T) {
	f := newFleet(t, never(t))
	seen := map[string]bool{}
	for range 3 {
		c, err := readChallenge(rawStream(t, f))
		if err != nil || seen[string(c.Nonce)] {
			t.Fatalf("%x, %v", c.Nonce, err)
		}
		seen[string(c.Nonce)] = true
	}
}

func TestServerSurvivesGarbage(t *testing.T) {
	f := newFleet(t, never(t))
	for name, payload := range map[string]string{
		"not a frame":      "GET /join HTTP/1.1\r\n\r\n",
		"2 GiB announced":  "\x7f\xff\xff\xff",
		"over the cap":     "\x00\x00\x10\x01" + strings.Repeat("x", 4097),
		"not JSON":         "\x00\x00\x00\x03{]}",
		"another type":     "\x00\x00\x00\x04[42]",
		"nothing in it":    "\x00\x00\x00\x02{}",
		"cut in the frame": "\x00\x00\x01\x00{",
	} {
		t.Run(name, func(t *testing.T) {
			s := rawStream(t, f)
			if _, err := readChallenge(s); err != nil {
				t.Fatal(err)
			}
			io.WriteString(s, payload)
			s.CloseWrite()
			if g, err := readAnswer(s); err == nil {
				t.Fatalf("granted %+v", g)
			}
		})
	}
}

func TestTwoProofsOrNoneAreRefused(t *testing.T) {
	pub, sig := newKey(t).Public(), make([]byte, ed25519.SignatureSize)
	good := Request{PublicKey: pub, Name: "n", EnrolmentKey: pub, Signature: sig}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Request){
		"both proofs":        func(r *Request) { r.TokenSecret = []byte("x") },
		"no proof":           func(r *Request) { r.EnrolmentKey, r.Signature = nil, nil },
		"half a proof":       func(r *Request) { r.Signature = nil },
		"short key":          func(r *Request) { r.PublicKey = pub[:31] },
		"no name":            func(r *Request) { r.Name = "" },
		"long name":          func(r *Request) { r.Name = strings.Repeat("n", nameMax+1) },
		"name not UTF-8":     func(r *Request) { r.Name = "\xff" },
		"long token":         func(r *Request) { r.EnrolmentKey, r.Signature, r.TokenSecret = nil, nil, make([]byte, 65) },
		"long signature":     func(r *Request) { r.Signature = make([]byte, 65) },
		"short enrolment":    func(r *Request) { r.EnrolmentKey = pub[:1] },
		"empty everything":   func(r *Request) { *r = Request{} },
		"enrolment no token": func(r *Request) { r.EnrolmentKey = nil },
	} {
		r := good
		change(&r)
		if !errors.Is(r.Check(), errMalformed) {
			t.Errorf("%s passed", what)
		}
	}
}

func TestClientSurvivesABadServer(t *testing.T) {
	f := silentFleet(t)
	genuine := challenge{Nonce: make([]byte, nonceBytes), Chain: f.chainOf(f.key.Public()), UnixMillis: time.Now().UnixMilli()}
	afterRequest := func(then func(s *link.Stream, r Request)) func(context.Context, *link.Stream) {
		return func(_ context.Context, s *link.Stream) {
			wire.WriteJSON(s, genuine, challengeMax)
			if r, err := readRequest(s); err == nil {
				then(s, r)
			}
		}
	}
	grants := func(change func(*Grant, Request)) func(context.Context, *link.Stream) {
		return afterRequest(func(s *link.Stream, r Request) {
			g := f.grant(r)
			change(&g, r)
			wire.WriteJSON(s, answer{Grant: &g}, answerMax)
		})
	}
	for name, handler := range map[string]func(context.Context, *link.Stream){
		"says garbage":         func(_ context.Context, s *link.Stream) { io.WriteString(s, "SSH-2.0-OpenSSH\r\n") },
		"announces 2 GiB":      func(_ context.Context, s *link.Stream) { s.Write([]byte{0x7f, 0xff, 0xff, 0xff}) },
		"closes":               func(context.Context, *link.Stream) {},
		"short nonce":          func(_ context.Context, s *link.Stream) { wire.WriteJSON(s, challenge{Nonce: []byte{1}}, 1000) },
		"closes after request": afterRequest(func(*link.Stream, Request) {}),
		"empty answer":         afterRequest(func(s *link.Stream, _ Request) { wire.WriteJSON(s, answer{}, answerMax) }),
		"huge answer": afterRequest(func(s *link.Stream, _ Request) {
			s.Write([]byte{0, 1, 0, 1})
			s.Write(make([]byte, 65537))
		}),
		"certificate of another robot":       grants(func(g *Grant, _ Request) { g.Chain = f.chainOf(f.key.Public()) }),
		"certificate of another root":        grants(func(g *Grant, r Request) { g.Chain[0].Signature[0] ^= 1 }),
		"no certificate":                     grants(func(g *Grant, _ Request) { g.Chain = nil }),
		"no gossip keys":                     grants(func(g *Grant, _ Request) { g.Keys = nil }),
		"more gossip keys than can be right": grants(func(g *Grant, _ Request) { g.Keys = json.RawMessage(`"` + strings.Repeat("k", keysMax) + `"`) }),
	} {
		t.Run(name, func(t *testing.T) {
			f.host.HandleOpen(Protocol, handler)
			g, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
			if err == nil {
				t.Fatalf("accepted %+v", g)
			}
			if refusal, ok := errors.AsType[*Refusal](err); ok && refusal.Code != CodeWrongFleet {
				t.Fatalf("a broken server counts as a decision: %v", err)
			}
		})
	}
}

func TestHintsOfAGrantAreSifted(t *testing.T) {
	f := silentFleet(t)
	r := Request{PublicKey: newKey(t).Public()}
	g := f.grant(r)
	g.FleetName = "ge\x1b[31mese\n"
	lie := f.endpoint()
	lie.ID = "somebody"
	g.Voters = append([]ident.Endpoint{lie}, g.Voters...)
	for range 30 {
		g.Voters = append(g.Voters, f.endpoint())
	}
	got, err := checkGrant(g, r.PublicKey, f.root.Public())
	if err != nil {
		t.Fatal(err)
	}
	if got.FleetName != "ge[31mese" || len(got.Voters) != votersMax || got.Voters[0].ID != f.key.ID() {
		t.Fatalf("name %q, %d voters", got.FleetName, len(got.Voters))
	}
}

func TestSlowServerEndsWithTheContext(t *testing.T) {
	f := silentFleet(t)
	f.host.HandleOpen(Protocol, func(ctx context.Context, s *link.Stream) { io.Copy(io.Discard, s) })
	r := newRobot(t, Credential{FleetFile: f.file()})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := Ask(ctx, r.host, f.endpoint(), r.Applicant); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Fatalf("took %s", took)
	}
}

func TestSlowClientIsCutOff(t *testing.T) {
	f := newFleet(t, never(t))
	s := rawStream(t, f)
	if _, err := readChallenge(s); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	s.Write([]byte{0, 0})
	s.SetDeadline(time.Now().Add(readTimeout + 5*time.Second))
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want a reset", err)
	}
	if took := time.Since(start); took > readTimeout+2*time.Second {
		t.Fatalf("held for %s", took)
	}
}

func TestAMemberToBeIsNoServerYet(t *testing.T) {
	f := silentFleet(t)
	f.serve(never(t), func(c *ServerConfig) { c.Chain = func() ident.Chain { return nil } })
	_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
	wantCode(t, err, CodeBusy)
}

func TestAStrangersRefusalIsNotFinal(t *testing.T) {
	f := silentFleet(t)
	f.host.HandleOpen(Protocol, func(_ context.Context, s *link.Stream) {
		wire.WriteJSON(s, challenge{Refusal: &Refusal{CodeRevoked, "you were revoked", "give up"}}, challengeMax)
	})
	_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
	if !wantCode(t, err, CodeBusy).Retry() {
		t.Fatal("a server that proved nothing ended the attempt")
	}
}

func TestServersTextIsMadeSafe(t *testing.T) {
	f := newFleet(t, func(Request, []byte) (Grant, error) {
		return Grant{}, &Refusal{"\x1b[2Jcode", "line\nbreak\x00" + strings.Repeat("ñ", 1000), "next\r"}
	})
	_, err := newRobot(t, Credential{FleetFile: f.file()}).ask(t, f.endpoint())
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || refusal.Code != "[2Jcode" || len(refusal.Message) > textMax || refusal.Next != "next" || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
		t.Fatalf("got %q", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	r := Request{PublicKey: newKey(t).Public(), Name: "goose", TokenSecret: []byte("hush-hush")}
	g := Grant{Chain: make(ident.Chain, 1), Keys: json.RawMessage("hush-hush")}
	for _, text := range []string{
		fmt.Sprint(r, g), fmt.Sprintf("%+v %+v", r, g), fmt.Sprintf("%#v %#v", r, g), fmt.Sprintf("%s %s", r, g),
	} {
		if strings.Contains(text, "hush") || strings.Contains(text, "104 117 115") {
			t.Fatalf("printed %s", text)
		}
	}
}

func frame(v any) []byte {
	var b bytes.Buffer
	wire.WriteJSON(&b, v, 1<<20)
	return b.Bytes()
}

func FuzzReadRequest(f *testing.F) {
	pub, sig := make(ed25519.PublicKey, 32), make([]byte, 64)
	f.Add(frame(Request{PublicKey: pub, Name: "n", TokenSecret: []byte("x")}))
	f.Add(frame(Request{PublicKey: pub, Name: "n", EnrolmentKey: pub, Signature: sig}))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readRequest(bytes.NewReader(data))
		if err != nil {
			return
		}
		if err := r.Check(); err != nil {
			t.Fatalf("read but not well formed: %v", err)
		}
		if len(r.EnrolmentKey) > 0 && VerifyEnrolment(r, make([]byte, nonceBytes)) == nil {
			t.Fatal("a made-up signature verified")
		}
	})
}

func FuzzReadChallenge(f *testing.F) {
	f.Add(frame(challenge{Nonce: make([]byte, nonceBytes), Chain: make(ident.Chain, 1), Fleet: "f", UnixMillis: 1}))
	f.Add(frame(challenge{Refusal: &Refusal{CodeBusy, "m\x00", "n"}}))
	root, _ := ident.NewKey()
	a := Applicant{Credential: Credential{Token: &ident.JoinToken{Root: root.Public()}}, Now: time.Now}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readChallenge(bytes.NewReader(data))
		if err != nil {
			return
		}
		if c.Refusal == nil && a.trust(c, root.Public(), ident.Endpoint{}) == nil {
			t.Fatal("an unsigned challenge was trusted")
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(frame(answer{Grant: &Grant{Chain: make(ident.Chain, 1), Keys: json.RawMessage(`{}`)}}))
	f.Add(frame(answer{Refusal: &Refusal{CodeRevoked, "m", "n"}}))
	root, _ := ident.NewKey()
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := readAnswer(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, err := checkGrant(g, root.Public(), root.Public()); err == nil {
			t.Fatal("an unsigned grant was accepted")
		}
	})
}
