package auth

import (
	"context"
	"fmt"
	"net"
	"time"

	"skein/mesh/ident"
	"skein/mesh/wire"
	"skein/node/gateway/view"
)

// Protocol is the stream protocol by which members pass logins to voters.
const Protocol = "/skein/login/1"

const (
	// askTimeout bounds one forwarded question, answer included.
	askTimeout = 5 * time.Second
	// tryTimeout bounds one of several voters, so that a dead one costs little.
	tryTimeout = 2 * time.Second
	// maxTries is how many voters are asked when any would do.
	maxTries = 3
)

// Forwarder reaches other members.
type Forwarder interface {
	// OpenLogin opens a stream of Protocol to a member.
	OpenLogin(ctx context.Context, id ident.NodeID) (net.Conn, error)
}

// question is exactly one of its fields.
type question struct {
	Info  bool        `json:"info,omitempty"`
	Login *view.Login `json:"login,omitempty"`
	// CodeFor is the token of the person who wants a one-time code.
	CodeFor string `json:"codeFor,omitempty"`
}

// answer is Problem, or what was asked for.
type answer struct {
	Problem *view.Problem   `json:"problem,omitempty"`
	Info    *view.LoginInfo `json:"info,omitempty"`
	Session *view.Session   `json:"session,omitempty"`
	Code    *view.LoginCode `json:"code,omitempty"`
}

// fits reports whether a answers q.
func (a answer) fits(q question) bool {
	return q.Info && a.Info != nil || q.Login != nil && a.Session != nil || q.CodeFor != "" && a.Code != nil
}

// ask puts q to one voter.
func (s *Service) ask(ctx context.Context, voter ident.NodeID, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := s.exchange(ctx, voter, q)
	if err != nil {
		s.log.Warn("login could not be passed on", "voter", voter, "err", err)
		return answer{}, unreachable("the voter "+voter.Short()+" that has to check this login does not answer",
			"try again, or start the login anew at another robot")
	}
	if a.Problem != nil {
		return answer{}, a.Problem
	}
	return a, nil
}

// askAnyVoter puts q to voters until one answers. A refusal is an answer.
func (s *Service) askAnyVoter(ctx context.Context, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	voters := s.directory.Voters()
	for _, voter := range voters[:min(len(voters), maxTries)] {
		try, done := context.WithTimeout(ctx, tryTimeout)
		a, err := s.exchange(try, voter, q)
		done()
		switch {
		case err != nil:
			s.log.Warn("login could not be passed on", "voter", voter, "err", err)
		case a.Problem != nil:
			return answer{}, a.Problem
		default:
			return a, nil
		}
	}
	return answer{}, unreachable("no voter of the fleet answers this robot, so nobody can be logged in here",
		"check that a voter runs and is on the same network")
}

func (s *Service) exchange(ctx context.Context, voter ident.NodeID, q question) (answer, error) {
	conn, err := s.forwarder.OpenLogin(ctx, voter)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{}, fmt.Errorf("set deadline: %w", err)
	}
	// A caller that goes away before the deadline ends the exchange too.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := wire.WriteJSON(conn, q, wire.MaxControl); err != nil {
		return answer{}, fmt.Errorf("send login: %w", err)
	}
	var a answer
	if err := wire.ReadJSON(conn, &a, wire.MaxControl); err != nil {
		return answer{}, fmt.Errorf("read answer to login: %w", err)
	}
	if a.Problem == nil && !a.fits(q) {
		return answer{}, fmt.Errorf("voter %s answered something else than asked", voter.Short())
	}
	return a, nil
}

// Serve answers one forwarded question on a stream of Protocol from a member
// and closes it. It never forwards further.
func (s *Service) Serve(ctx context.Context, from ident.NodeID, conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var q question
	if err := wire.ReadJSON(conn, &q, wire.MaxControl); err != nil {
		s.log.Debug("forwarded login could not be read", "from", from, "err", err)
		return
	}
	a, err := s.answer(ctx, from, q)
	if err != nil {
		a = answer{Problem: problemOf(err)}
	}
	if err := wire.WriteJSON(conn, a, wire.MaxControl); err != nil {
		s.log.Debug("forwarded login could not be answered", "to", from, "err", err)
	}
}

func (s *Service) answer(ctx context.Context, from ident.NodeID, q question) (answer, error) {
	// Only tries are counted: the member that passes logins on has already
	// slowed down whoever guesses, and others log in through it too.
	if !s.peers.Allow(string(from), s.now()) {
		return answer{}, RateLimited()
	}
	if !s.issues() {
		return answer{}, unreachable("the robot asked is no voter any more", "start the login anew")
	}
	switch {
	case q.Info:
		info, err := s.Info(ctx)
		return answer{Info: &info}, err
	case q.Login != nil:
		session, err := s.loginHere(*q.Login)
		return answer{Session: &session}, err
	case q.CodeFor != "":
		code, err := s.NewCode(ctx, q.CodeFor)
		return answer{Code: &code}, err
	}
	return answer{}, refuse(400, "invalid", "the forwarded login is empty", "upgrade the robot that passed it on")
}

// RateLimited is the refusal of a remote that tries too often.
func RateLimited() *view.Problem {
	return &view.Problem{Status: 429, Code: "rate_limited", Detail: "too many logins, or too many that failed, from this address",
		Next: "wait a few seconds and try again", RetryAfterMillis: 5000}
}
