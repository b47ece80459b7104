package event

import (
	"crypto/ed25519"
	"encoding/json"
	"math"
	"strconv"

	"skein/mesh/ident"
)

// Validate reports, as a *Fault, what is wrong with a draft on its own: type,
// stream and every field of its data.
func Validate(d Draft) error {
	if _, fault := d.decode(); fault != nil {
		return fault
	}
	return nil
}

// Validate reports, as a *Fault, what is wrong with a batch on its own: its
// size, actor and producer, every draft, and that the actor may propose it.
// What it accepts can still be refused by the state. A recovery is refused; see
// KindRecovery.
func (b Batch) Validate() error { return new(Decoder).Validate(&b) }

// Validate is Batch.Validate, for who checks many.
func (d *Decoder) Validate(b *Batch) error {
	if fault := b.CheckEnvelope(); fault != nil {
		return fault
	}
	if fault := b.Actor.proposes(); fault != nil {
		return fault
	}
	for i := range b.Drafts {
		if _, fault := d.Draft(b, i, anyLevel); fault != nil {
			return fault
		}
	}
	return nil
}

// anyLevel is a ceiling that nothing exceeds.
const anyLevel = math.MaxUint64

// Decode is the part of Validate that looks into draft i. It gives the draft's
// typed data, for who needs that as well.
func (b Batch) Decode(i int) (Payload, *Fault) {
	d := b.Drafts[i]
	p, fault := d.decode()
	if fault == nil {
		desc, _ := describe(d.Type, d.Schema)
		fault = desc.authorize(b.Actor, d.Stream)
	}
	if fault != nil {
		return nil, fault.In(DraftPath(i))
	}
	return p, nil
}

// DraftPath is where draft i stands in a batch, for the path of a Fault.
func DraftPath(i int) string { return "drafts[" + strconv.Itoa(i) + "]" }

// CheckEnvelope is the part of Validate that does not look into the drafts.
func (b Batch) CheckEnvelope() *Fault {
	if n := len(b.Drafts); n == 0 || n > MaxDrafts {
		return Refuse(CodeInvalid, "", "split it", "drafts: a batch has 1 to %d, this one %d", MaxDrafts, n)
	}
	if n := b.Size(); n > MaxBatchBytes {
		return Refuse(CodeInvalid, "", "split it", "the batch has %d bytes, at most %d are allowed", n, MaxBatchBytes)
	}
	if fault := b.Actor.wrong(); fault != nil {
		return fault.In("actor")
	}
	if p := b.Producer; p != (Producer{}) && (wrongID(string(p.Node)) != "" || p.N == 0) {
		return &Fault{Code: CodeInvalid, Path: "producer", Message: "needs a node id and a number from 1", Next: "this is a fault of the program that proposes"}
	}
	return nil
}

func (d Draft) decode() (Payload, *Fault) {
	desc, fault := describe(d.Type, d.Schema)
	if fault != nil {
		return nil, fault
	}
	if fault := d.check(desc); fault != nil {
		return nil, fault
	}
	return decodePayload(desc, d.Stream, d.Data)
}

// check is what can be said of a draft without its data.
func (d *Draft) check(desc *descriptor) *Fault {
	if wrong := desc.stream.wrong(d.Stream); wrong != "" {
		return &Fault{Code: CodeInvalid, Path: "stream", Message: wrong, Next: "wanted is " + desc.stream.form()}
	}
	if d.Cause == "" {
		return nil
	}
	if wrong := wrongText(MaxCause)(d.Cause); wrong != "" {
		return &Fault{Code: CodeInvalid, Path: "cause", Message: wrong, Next: "give one line of up to 128 bytes"}
	}
	return nil
}

func decodePayload(desc *descriptor, stream string, data []byte) (Payload, *Fault) {
	if len(data) > MaxData {
		return nil, Refuse(CodeInvalid, "", "send less; large things are artifacts, not events", "data has %d bytes, at most %d are allowed", len(data), MaxData).In("data")
	}
	p := desc.of.empty()
	c := codec{schema: desc.schema}
	if fault := c.decode(data, Subject(stream), p.fields); fault != nil {
		return nil, fault.In("data")
	}
	return p, nil
}

// Decode gives the typed data of an event from the log. The fault is of
// CodeUnknownType when a newer build wrote it.
func (e Event) Decode() (Payload, error) {
	desc, fault := describe(e.Type, e.Schema)
	if fault != nil {
		return nil, fault
	}
	p, fault := decodePayload(desc, e.Stream, e.Data)
	if fault != nil {
		return nil, fault
	}
	return p, nil
}

// Encode is the canonical JSON of a payload, in the form of a schema of its type.
// About how many bytes it has may be known; 0 if not.
func Encode(p Payload, schema uint64, about int) json.RawMessage {
	c := codec{mode: encoding, schema: schema, out: append(make([]byte, 0, about), '{')}
	p.fields(&c)
	return append(c.out, '}')
}

// requireID refuses a key that is not that of the stream's id.
func (c *codec) requireID(name string, key ed25519.PublicKey) {
	if c.mode == decoding && c.fault == nil && string(ident.IDOf(key)) != c.id {
		c.refuse(name, "is not the key of the id in the stream", "the id is the hash of the key")
	}
}
