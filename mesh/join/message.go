package join

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/mesh/wire"
)

// Protocol is the id under which a Server is reached; give it to HandleOpen.
const Protocol link.Protocol = "/skein/join/1"

// Caps of the messages, in bytes, and of what they hold.
const (
	challengeMax = 16 << 10
	requestMax   = 4 << 10
	answerMax    = wire.MaxControl
	nonceBytes   = 32
	nameMax      = 64
	keysMax      = 8 << 10
	votersMax    = 16
)

// Time bounds.
const (
	// readTimeout bounds each message of the peer.
	readTimeout = 5 * time.Second
	// decideTimeout bounds the Authority; the client waits a little longer.
	decideTimeout = 15 * time.Second
)

// domainEnrolment separates this signature from all others.
const domainEnrolment = "join-enrolment/1"

// errMalformed: a message breaks the protocol's own rules.
var errMalformed = errors.New("message is malformed")

// challenge is the server's first message. With Refusal set the rest is empty;
// it means "ask somebody else" whatever its code says, because the server has
// not been verified: a stranger must not be able to end an attempt to join.
type challenge struct {
	Nonce      []byte        `json:"nonce,omitempty"`
	Chain      ident.Chain   `json:"chain,omitempty"`
	Fleet      ident.FleetID `json:"fleet,omitempty"`
	UnixMillis int64         `json:"unixMillis,omitempty"`
	Refusal    *Refusal      `json:"refusal,omitempty"`
}

// Request asks for admission. It has exactly one proof: EnrolmentKey with
// Signature, or TokenSecret. It holds a secret: do not log it.
type Request struct {
	// PublicKey is the robot's own; it must be the one that opened the stream.
	PublicKey ed25519.PublicKey `json:"publicKey"`
	// Name is for people, 1 to 64 bytes.
	Name string `json:"name"`
	// EnrolmentKey is the public half of the fleet file's enrolment key;
	// Signature is checked by VerifyEnrolment.
	EnrolmentKey ed25519.PublicKey `json:"enrolmentKey,omitempty"`
	Signature    []byte            `json:"signature,omitempty"`
	// TokenSecret is that of a one-time token; the log knows its hash.
	TokenSecret []byte `json:"tokenSecret,omitempty"`
}

// Check reports what is wrong with the request's form.
func (r Request) Check() error {
	enrolment, token := len(r.EnrolmentKey) > 0 || len(r.Signature) > 0, len(r.TokenSecret) > 0
	switch {
	case len(r.PublicKey) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: public key has %d bytes", errMalformed, len(r.PublicKey))
	case r.Name == "" || len(r.Name) > nameMax || !utf8.ValidString(r.Name):
		return fmt.Errorf("%w: name must have 1 to %d bytes of UTF-8", errMalformed, nameMax)
	case enrolment == token:
		return fmt.Errorf("%w: exactly one proof is wanted, an enrolment signature or a token", errMalformed)
	case enrolment && (len(r.EnrolmentKey) != ed25519.PublicKeySize || len(r.Signature) != ed25519.SignatureSize):
		return fmt.Errorf("%w: enrolment proof has the wrong length", errMalformed)
	case token && len(r.TokenSecret) > 64:
		return fmt.Errorf("%w: token secret has %d bytes", errMalformed, len(r.TokenSecret))
	}
	return nil
}

// String names the robot and not its proof.
func (r Request) String() string {
	return fmt.Sprintf("request of %s (%q)", ident.IDOf(r.PublicKey).Short(), r.Name)
}

// GoString keeps %#v from printing secrets.
func (r Request) GoString() string { return r.String() }

// Grant makes a robot a member. It holds secrets: do not log its fields.
type Grant struct {
	// Chain is the robot's certificate and what leads from it to the root.
	Chain     ident.Chain `json:"chain"`
	FleetName string      `json:"fleetName"`
	// Keys are the current gossip keys, as package keyring encodes them.
	Keys json.RawMessage `json:"keys"`
	// Voters is where the fleet's voters are, to follow the log. May be empty.
	Voters []ident.Endpoint `json:"voters,omitempty"`
	// LeaderTime is the leader's wall clock when it decided.
	LeaderTime time.Time `json:"leaderTime"`
}

// String names the robot and keeps the gossip keys out of logs.
func (g Grant) String() string {
	if len(g.Chain) == 0 {
		return "empty grant"
	}
	return fmt.Sprintf("grant for %s in %q", g.Chain[0].Node().Short(), g.FleetName)
}

// GoString keeps %#v from printing secrets.
func (g Grant) GoString() string { return g.String() }

// answer is the server's last message: one of both.
type answer struct {
	Grant   *Grant   `json:"grant,omitempty"`
	Refusal *Refusal `json:"refusal,omitempty"`
}

// VerifyEnrolment checks that the request's enrolment key signed this robot's
// key and name for this nonce. Whether the key is one of the fleet's, and not
// revoked, is for the replicated state to say.
func VerifyEnrolment(r Request, nonce []byte) error {
	if len(nonce) != nonceBytes {
		return fmt.Errorf("verify enrolment: nonce has %d bytes, want %d", len(nonce), nonceBytes)
	}
	if !ident.Verify(r.EnrolmentKey, domainEnrolment, r.signedBytes(nonce), r.Signature) {
		return errors.New("verify enrolment: the signature is wrong")
	}
	return nil
}

// signedBytes is the canonical form: fixed order, length-prefixed.
func (r Request) signedBytes(nonce []byte) []byte {
	var b []byte
	for _, part := range [][]byte{nonce, r.PublicKey, []byte(r.Name)} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

func readChallenge(r io.Reader) (challenge, error) {
	var c challenge
	if err := wire.ReadJSON(r, &c, challengeMax); err != nil {
		return challenge{}, fmt.Errorf("read challenge: %w", err)
	}
	if c.Refusal != nil {
		refusal := c.Refusal.tidy()
		refusal.Code = CodeBusy
		return challenge{Refusal: refusal}, nil
	}
	if len(c.Nonce) != nonceBytes {
		return challenge{}, fmt.Errorf("read challenge: %w: nonce has %d bytes, want %d", errMalformed, len(c.Nonce), nonceBytes)
	}
	return c, nil
}

func readRequest(r io.Reader) (Request, error) {
	var q Request
	if err := wire.ReadJSON(r, &q, requestMax); err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	if err := q.Check(); err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	return q, nil
}

// readAnswer gives a grant, or the refusal as an error.
func readAnswer(r io.Reader) (Grant, error) {
	var a answer
	if err := wire.ReadJSON(r, &a, answerMax); err != nil {
		return Grant{}, fmt.Errorf("read answer: %w", err)
	}
	if a.Refusal != nil {
		return Grant{}, a.Refusal.tidy()
	}
	if a.Grant == nil {
		return Grant{}, fmt.Errorf("read answer: %w: neither grant nor refusal", errMalformed)
	}
	return *a.Grant, nil
}

// checkGrant verifies that the grant makes key a member, and drops what of the
// hints is not usable.
func checkGrant(g Grant, key ed25519.PublicKey, root ed25519.PublicKey) (Grant, error) {
	holder, err := g.Chain.Verify(root)
	if err != nil {
		return Grant{}, fmt.Errorf("check grant: %w", err)
	}
	if !holder.PublicKey.Equal(key) {
		return Grant{}, fmt.Errorf("check grant: %w: the certificate is for %s", errMalformed, holder.Node().Short())
	}
	// An absent value travels as null, hence the look at the first byte.
	if len(g.Keys) == 0 || len(g.Keys) > keysMax || g.Keys[0] != '{' || !json.Valid(g.Keys) {
		return Grant{}, fmt.Errorf("check grant: %w: no gossip keys", errMalformed)
	}
	g.FleetName = printable(g.FleetName, nameMax)
	voters := make([]ident.Endpoint, 0, min(len(g.Voters), votersMax))
	for _, v := range g.Voters {
		if v.Valid() && len(voters) < votersMax {
			voters = append(voters, v)
		}
	}
	g.Voters = voters
	return g, nil
}
