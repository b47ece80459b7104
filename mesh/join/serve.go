package join

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/mesh/wire"
)

// Authority decides. Implementations forward to the leader if they are not it.
type Authority interface {
	// Admit checks the proof in r for this nonce (VerifyEnrolment, or the token's
	// hash in the log), records the admission and issues the certificate. An error
	// that is a *Refusal is sent as it is; any other is told as "busy".
	Admit(ctx context.Context, remote ident.NodeID, r Request, nonce []byte) (Grant, error)
}

// ServerConfig is what a server shows of itself.
type ServerConfig struct {
	// Chain is this node's certificate chain; nil while it is not a member, then
	// every request is refused as busy.
	Chain func() ident.Chain
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Serve returns the handler of Protocol for Host.HandleOpen.
func Serve(a Authority, cfg ServerConfig) func(ctx context.Context, s *link.Stream) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return func(ctx context.Context, s *link.Stream) {
		if err := (&server{a, cfg}).serve(ctx, s); err != nil {
			cfg.Log.Debug("request to join not served", "peer", s.Remote(), "err", err)
			s.Reset()
		}
	}
}

type server struct {
	authority Authority
	cfg       ServerConfig
}

// serve handles one stream. An error means that it is of no more use.
func (v *server) serve(ctx context.Context, s *link.Stream) error {
	chain := v.cfg.Chain()
	if len(chain) == 0 {
		refusal := &Refusal{CodeBusy, "the robot that was asked is not a member itself yet", "joining is tried again elsewhere"}
		return wire.WriteJSON(s, challenge{Refusal: refusal}, challengeMax)
	}
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce)
	mine := challenge{Nonce: nonce, Chain: chain, Fleet: chain[0].Fleet, UnixMillis: v.cfg.Now().UnixMilli()}
	s.SetDeadline(time.Now().Add(readTimeout))
	if err := wire.WriteJSON(s, mine, challengeMax); err != nil {
		return err
	}
	r, err := readRequest(s)
	if errors.Is(err, errMalformed) {
		return v.answer(s, answer{Refusal: &Refusal{CodeInvalid, err.Error(), "check that both robots run the same version"}})
	}
	if err != nil {
		return err
	}
	return v.answer(s, v.decide(ctx, s.Remote(), r, nonce))
}

func (v *server) decide(ctx context.Context, remote ident.NodeID, r Request, nonce []byte) answer {
	if ident.IDOf(r.PublicKey) != remote {
		return answer{Refusal: &Refusal{CodeInvalid, "the request is for another key than the one that connected", ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	grant, err := v.authority.Admit(ctx, remote, r, nonce)
	if err == nil {
		v.cfg.Log.Info("robot let in", "peer", remote, "name", r.Name)
		return answer{Grant: &grant}
	}
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		v.cfg.Log.Warn("request to join could not be decided", "peer", remote, "err", err)
		refusal = &Refusal{CodeBusy, "the fleet could not decide now", "joining is tried again"}
	}
	v.cfg.Log.Info("robot not let in", "peer", remote, "name", r.Name, "code", refusal.Code)
	return answer{Refusal: refusal}
}

func (v *server) answer(s *link.Stream, a answer) error {
	s.SetDeadline(time.Now().Add(readTimeout))
	return wire.WriteJSON(s, a, answerMax)
}
