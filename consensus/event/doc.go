// Package event holds the words of the replicated log: the envelope, one Go
// struct for each event type, and the rules by which a proposal is refused
// before it costs anything.
//
// An event is a fact that the fleet decided, never a sample or a heartbeat. It
// is proposed as a [Draft]; drafts travel in an atomic [Batch]; what was
// accepted is an [Event] with its sequence number, the leader's time and its
// version in its stream.
//
// Each payload struct lists its fields once, in its method fields. That list
// decodes (strictly: no unknown, missing, repeated or null field, no value out
// of range, valid UTF-8 only), encodes in one canonical form, and describes the
// type in the catalogue. A table in catalogue.go adds the stream and who may
// propose it.
//
// The package is pure: no clock, no randomness, no I/O, no goroutines, and no
// rule that depends on the Go version (so no unicode tables), because replicas
// of different builds must agree on every verdict. A rule of a published type is
// never changed; a new schema number is added beside it. What a release adds has
// its [Level], and is refused until the fleet's ceiling is that high.
//
// A [Decoder] is the fast way to read many payloads; [Event.Decode] the plain one.
//
// Everything refused is a *[Fault] with the field's path and what to do next.
// Every other package may import event; it imports only mesh/ident.
package event

// Bounds of what may be proposed. Every one of them is tested at the bound.
const (
	// MaxData is the most bytes of one draft's data.
	MaxData = 16 << 10
	// MaxDrafts is the most drafts in one batch.
	MaxDrafts = 512
	// MaxBatchBytes bounds Batch.Size, so that a batch, an entry of the Raft log
	// and a record of the history each fit a frame of wire.MaxBatch.
	MaxBatchBytes = 1 << 20
	// MaxCause is the most bytes of a draft's cause.
	MaxCause = 128
	// MaxName is the most characters of a name of a robot, person, group or fleet.
	MaxName = 64
	// MaxText is the most bytes of a reason or a description.
	MaxText = 256
	// MaxLabels is the most labels of one robot, and in one change of them.
	MaxLabels = 32
	// MaxLabelKey and MaxLabelValue bound a label, in bytes.
	MaxLabelKey   = 63
	MaxLabelValue = 128
	// MaxTimeMillis is the latest time of an event, in milliseconds since 1970: the
	// year 9000, so that no sum of it and a TTL leaves what JSON can hold.
	MaxTimeMillis = 221_845_392_000_000
	// MaxTokenSeconds is the longest life of a join token: a week.
	MaxTokenSeconds = 7 * 86400
)
