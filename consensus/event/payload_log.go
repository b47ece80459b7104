package event

import (
	"crypto/ed25519"
	"strconv"

	"skein/mesh/ident"
)

// DomainSeal is what the signature of a seal is for; see ident.Key.Sign.
const DomainSeal = "log-seal/1"

// CeilingRaised lets the fleet use event types up to a level, because all its
// voters know them. It is never lowered.
type CeilingRaised struct {
	// Level is higher than the ceiling before, which is 1 at first.
	Level uint64
}

func (e *CeilingRaised) fields(c *codec) {
	c.whole("level", &e.Level, 2, 1<<20, "newest level of event types that every voter knows")
}

// Draft proposes the event.
func (e CeilingRaised) Draft() Draft { return draft(TypeCeilingRaised, FleetStream, &e) }

// LogSealed says what the chain's hash is after an event, signed by the leader
// that the event's actor names. From then on nobody else, not even a later
// leader, can write another past without being found out.
type LogSealed struct {
	// Seq is the last event that is sealed: after the one sealed before, and before
	// this event.
	Seq uint64
	// Hash is the chain's after Seq, 64 digits of lower-case hex.
	Hash string
	// Signature is of SealMessage, for DomainSeal, with the leader's node key.
	Signature []byte
}

func (e *LogSealed) fields(c *codec) {
	c.whole("seq", &e.Seq, 1, maxSeq, "last event that is sealed")
	text(c, "hash", &e.Hash, ruleHash)
	c.signature("signature", &e.Signature)
}

// Draft proposes the event.
func (e LogSealed) Draft() Draft { return draft(TypeLogSealed, LogStream, &e) }

// Seal signs the place seq of a log, whose chain has that hash after it.
func Seal(key ident.Key, history string, seq uint64, hash string) LogSealed {
	return LogSealed{Seq: seq, Hash: hash, Signature: key.Sign(DomainSeal, SealMessage(history, seq, hash))}
}

// Signed reports whether the seal is pub's, for the log called history.
func (e LogSealed) Signed(history string, pub ed25519.PublicKey) bool {
	return ident.Verify(pub, DomainSeal, SealMessage(history, e.Seq, e.Hash), e.Signature)
}

// SealMessage is what a seal signs: for DomainSeal, that the chain of the log
// called history has that hash after event seq.
func SealMessage(history string, seq uint64, hash string) []byte {
	return []byte("history " + history + "\nseq " + strconv.FormatUint(seq, 10) + "\nhash " + hash + "\n")
}

// LogRecovered ends a log whose voters are lost and goes on with it under a new
// name, decided by the actor's node alone. Its actor is of KindRecovery.
type LogRecovered struct {
	// History is the new name of the log.
	History string
	// Seq and Hash are where the log ended: the last event before the batch.
	Seq  uint64
	Hash string
	// Reason is for the audit: who did it, and why. Not empty.
	Reason string
}

func (e *LogRecovered) fields(c *codec) {
	text(c, "history", &e.History, ruleHistory)
	c.whole("seq", &e.Seq, 1, maxSeq, "last event of the log before")
	text(c, "hash", &e.Hash, ruleHash)
	text(c, "reason", &e.Reason, ruleLine)
}

// Draft proposes the event.
func (e LogRecovered) Draft() Draft { return draft(TypeLogRecovered, LogStream, &e) }
