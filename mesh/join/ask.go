package join

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/mesh/wire"
)

// MaxSkew is how far this robot's clock may be from the fleet's, either way.
const MaxSkew = 5 * time.Minute

// Opener is what Ask needs of a host; *link.Host is one.
type Opener interface {
	OpenStranger(ctx context.Context, e ident.Endpoint, p link.Protocol) (*link.Stream, error)
}

// Credential is the right to ask: exactly one of both.
type Credential struct {
	FleetFile *ident.FleetFile
	Token     *ident.JoinToken
}

// Root is the key of the fleet to join, nil if the credential is empty.
func (c Credential) Root() ed25519.PublicKey {
	switch {
	case c.FleetFile != nil:
		return c.FleetFile.Root
	case c.Token != nil:
		return c.Token.Root
	}
	return nil
}

// prove puts the proof into r. It is called only after the server was verified.
func (c Credential) prove(r *Request, nonce []byte) error {
	if c.Token != nil {
		r.TokenSecret = c.Token.Secret
		return nil
	}
	key, err := c.FleetFile.Enrolment()
	if err != nil {
		return fmt.Errorf("read enrolment key: %w", err)
	}
	r.EnrolmentKey = key.Public()
	r.Signature = key.Sign(domainEnrolment, r.signedBytes(nonce))
	return nil
}

// Applicant is the robot that wants to join.
type Applicant struct {
	Credential Credential
	Key        ident.Key
	// Name is for people, 1 to 64 bytes.
	Name string
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Ask asks the member at e to admit the applicant. ctx bounds it all; without a
// deadline it takes at most about 35 s. The error is a *Refusal if somebody
// decided, this robot itself included; Refusal.Retry tells whether to go on
// asking. Any other error means that e could not be asked: try another.
func Ask(ctx context.Context, host Opener, e ident.Endpoint, a Applicant) (Grant, error) {
	grant, err := a.ask(ctx, host, e)
	if err != nil {
		return Grant{}, fmt.Errorf("join by way of %s: %w", e.ID.Short(), err)
	}
	return grant, nil
}

func (a Applicant) ask(ctx context.Context, host Opener, e ident.Endpoint) (Grant, error) {
	if a.Now == nil {
		a.Now = time.Now
	}
	if (a.Credential.FleetFile == nil) == (a.Credential.Token == nil) {
		return Grant{}, &Refusal{CodeInvalid, "exactly one of fleet file and token is wanted", "give one of them"}
	}
	if refusal := clockNotSet(a.Now()); refusal != nil {
		return Grant{}, refusal
	}
	s, err := host.OpenStranger(ctx, e, Protocol)
	if errors.Is(err, link.ErrBusy) {
		return Grant{}, &Refusal{CodeBusy, err.Error(), "joining is tried again"}
	}
	if err != nil {
		return Grant{}, err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	grant, err := a.converse(s, e)
	if ctx.Err() != nil && err != nil {
		return Grant{}, ctx.Err()
	}
	return grant, err
}

func (a Applicant) converse(s *link.Stream, e ident.Endpoint) (Grant, error) {
	s.SetDeadline(time.Now().Add(readTimeout))
	theirs, err := readChallenge(s)
	if err != nil {
		return Grant{}, err
	}
	if theirs.Refusal != nil {
		return Grant{}, theirs.Refusal
	}
	if err := a.trust(theirs, s.RemotePublicKey(), e); err != nil {
		return Grant{}, err
	}
	r := Request{PublicKey: a.Key.Public(), Name: a.Name}
	if err := a.Credential.prove(&r, theirs.Nonce); err != nil {
		return Grant{}, err
	}
	if err := r.Check(); err != nil {
		return Grant{}, &Refusal{CodeInvalid, err.Error(), "set another name"}
	}
	if err := wire.WriteJSON(s, r, requestMax); err != nil {
		return Grant{}, fmt.Errorf("send request: %w", err)
	}
	s.SetDeadline(time.Now().Add(decideTimeout + readTimeout))
	grant, err := readAnswer(s)
	if err != nil {
		return Grant{}, err
	}
	return checkGrant(grant, a.Key.Public(), a.Credential.Root())
}

// trust decides whether the server may see the proof: it must be a member of
// the fleet whose root key this robot carries, and agree on the time.
func (a Applicant) trust(c challenge, proven ed25519.PublicKey, e ident.Endpoint) error {
	root := a.Credential.Root()
	holder, err := c.Chain.Verify(root)
	if err != nil {
		return &Refusal{
			CodeWrongFleet,
			fmt.Sprintf("the robot %s is not of the fleet %s that this robot wants to join (%v)", e.ID.Short(), ident.FleetIDOf(root), err),
			"check that the fleet file or the token is of this fleet",
		}
	}
	if !holder.PublicKey.Equal(proven) {
		return &Refusal{
			CodeWrongFleet,
			fmt.Sprintf("the robot %s shows the certificate of %s", e.ID.Short(), holder.Node().Short()),
			"somebody may be in between; ask another robot",
		}
	}
	return clockOff(a.Now(), time.UnixMilli(c.UnixMillis))
}

// clockNotSet refuses a clock that starts at the epoch or the image's date.
func clockNotSet(now time.Time) *Refusal {
	if now.After(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)) {
		return nil
	}
	return &Refusal{
		CodeClockSkew,
		fmt.Sprintf("this robot's clock is not set: it says %s", now.UTC().Format(time.DateTime)),
		"run `timedatectl set-ntp true`, or set it by hand with `date -u -s`",
	}
}

// clockOff compares with the fleet's clock. It returns error and not *Refusal so
// that "no error" is a nil interface.
func clockOff(own, fleet time.Time) error {
	skew := own.Sub(fleet)
	if skew.Abs() <= MaxSkew {
		return nil
	}
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	return &Refusal{
		CodeClockSkew,
		fmt.Sprintf("this robot's clock is %d min %s the fleet's", int(skew.Abs().Round(time.Minute).Minutes()), side),
		fmt.Sprintf("run `timedatectl set-ntp true`, or set it by hand with `date -u -s '%s'`", fleet.UTC().Format(time.DateTime)),
	}
}
