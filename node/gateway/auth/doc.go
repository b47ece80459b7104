// Package auth says who a person is to this node.
//
// A person proves it once, to a voter: with a signature by the key that the log
// holds for her, or with a one-time code that somebody who was already logged
// in made. The voter answers with a token (a JWT signed with its node key) that
// every node of the fleet can check alone, because every node knows the voters'
// public keys from the log. There are no cookies and no sessions on a server.
//
// A node that is no voter passes the login on, over a stream of Protocol, to
// the voter that can answer: the one whose id a code begins with, or the one
// that GET /api/v1/login named for a signature.
//
// A token is checked against the log at every use: its issuer must still be a
// voter, its person must still exist, and she has only those of the token's
// scopes that the log still gives her. So removing a person cuts her off as
// soon as the news arrives, not when her token expires.
//
// Bounds: codes and used nonces are held in bounded stores that refuse when
// full (evicting a used nonce would allow a replay); rate limits are kept for
// the most recent remotes only. All stores are in memory: a restart voids codes.
//
// Imported by rest, ws and the composer. Errors are *view.Problem.
package auth
