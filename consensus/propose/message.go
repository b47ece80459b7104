package propose

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Protocol is the id of the streams from a proposer to the leader.
const Protocol = "/skein/propose/2"

const (
	// maxRequest bounds one proposal on the wire: a batch of event.MaxBatchBytes
	// fits with room to spare. maxAnswer bounds one answer.
	maxRequest = wire.MaxBatch
	maxAnswer  = wire.MaxControl
	// maxTokens is how many tokens a stream remembers, maxToken how long one is.
	maxTokens = 64
	maxToken  = 16 << 10
	// maxInterned and maxText bound the texts that a stream remembers because
	// they come again and again: the names of streams and types.
	maxInterned = 1024
	maxText     = 128
)

var errUnreadable = errors.New("message is not readable")

// request is one proposal on its way to the leader.
type request struct {
	// ID is answered with; unique on its stream.
	ID uint64
	// Boot and N are the producer's; its node is the stream's other end.
	Boot, N uint64
	// Token is a person's; empty means that the node speaks for itself.
	Token string
	// Drafts is the encoding of a list of event.Draft, kept from try to try.
	Drafts []byte
}

// answer is what became of a request: Fault, or the events it became.
type answer struct {
	ID          uint64
	First, Last uint64
	// Fault is why it was refused.
	Fault *event.Fault
	// State: the refusal is the replicated state's, given to this proposal and
	// after everything that was proposed before it.
	State bool
	// Leader is who leads instead, as far as the node knows that was asked.
	Leader ident.NodeID
}

// refusal is the part of an answer that is seldom.
type refusal struct {
	Fault  *event.Fault `json:"fault"`
	State  bool         `json:"state,omitempty"`
	Leader ident.NodeID `json:"leader,omitempty"`
}

// appendDrafts encodes drafts: their number, and for each stream, type, schema,
// cause, data, and the expected version plus one, 0 for any.
func appendDrafts(b []byte, drafts []event.Draft) []byte {
	b = binary.AppendUvarint(b, uint64(len(drafts)))
	for i := range drafts {
		d := &drafts[i]
		b = appendText(b, d.Stream)
		b = appendText(b, d.Type)
		b = binary.AppendUvarint(b, d.Schema)
		b = appendText(b, d.Cause)
		b = appendText(b, d.Data)
		if d.Expect == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(append(b, 1), *d.Expect)
	}
	return b
}

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// tokenTable is what the sender knows of the tokens that a stream remembers. A
// token is said in full once: it is longer than most proposals.
type tokenTable struct {
	places map[string]uint64
	in     [maxTokens]string
	next   uint64
}

// appendToken encodes a token: 0 for none, else its place from 1, doubled, plus
// one if it is said for the first time and follows.
func (t *tokenTable) appendToken(b []byte, token string) []byte {
	if token == "" {
		return append(b, 0)
	}
	if place, ok := t.places[token]; ok {
		return binary.AppendUvarint(b, place<<1)
	}
	if t.places == nil {
		t.places = map[string]uint64{}
	}
	at := t.next % maxTokens
	t.next++
	delete(t.places, t.in[at])
	t.in[at], t.places[token] = token, at+1
	return appendText(binary.AppendUvarint(b, (at+1)<<1|1), token)
}

// appendRequest encodes a request for a stream whose tokens are in t.
func appendRequest(b []byte, q *request, t *tokenTable) []byte {
	b = binary.AppendUvarint(b, q.ID)
	b = binary.AppendUvarint(b, q.Boot)
	b = binary.AppendUvarint(b, q.N)
	b = t.appendToken(b, q.Token)
	return append(b, q.Drafts...)
}

// requests decodes those of one stream.
type requests struct {
	tokens [maxTokens]string
	texts  map[string]string
}

// decode reads what appendRequest wrote. The drafts' data keeps b.
func (r *requests) decode(b []byte) (q request, drafts []event.Draft, err error) {
	in := input{rest: b}
	q.ID, q.Boot, q.N = in.number(), in.number(), in.number()
	q.Token = r.token(&in)
	q.Drafts = in.rest
	n := in.number()
	if n > event.MaxDrafts {
		return q, nil, errUnreadable
	}
	drafts = make([]event.Draft, 0, min(n, uint64(len(in.rest)/6)+1))
	for range n {
		d := event.Draft{Stream: r.text(&in), Type: r.text(&in), Schema: in.number(), Cause: string(in.bytes()), Data: in.bytes()}
		if has := in.number(); has == 1 {
			expect := in.number()
			d.Expect = &expect
		} else if has > 1 {
			in.bad = true
		}
		if in.bad {
			return q, nil, errUnreadable
		}
		drafts = append(drafts, d)
	}
	if in.bad || len(in.rest) > 0 {
		return q, nil, errUnreadable
	}
	return q, drafts, nil
}

func (r *requests) token(in *input) string {
	code := in.number()
	place := code >> 1
	if code == 0 || place == 0 || place > maxTokens {
		in.bad = in.bad || code != 0
		return ""
	}
	if code&1 == 0 {
		in.bad = in.bad || r.tokens[place-1] == ""
		return r.tokens[place-1]
	}
	token := in.bytes()
	if len(token) == 0 || len(token) > maxToken {
		in.bad = true
		return ""
	}
	r.tokens[place-1] = string(token)
	return r.tokens[place-1]
}

// text reads one that is likely to come again.
func (r *requests) text(in *input) string {
	b := in.bytes()
	if s, ok := r.texts[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) > maxText {
		return s
	}
	if r.texts == nil || len(r.texts) >= maxInterned {
		r.texts = map[string]string{}
	}
	r.texts[s] = s
	return s
}

// appendAnswer encodes an answer: id, then 0, first and how many more, or 1 and a
// refusal.
func appendAnswer(b []byte, a *answer) []byte {
	b = binary.AppendUvarint(b, a.ID)
	if a.Fault == nil {
		b = binary.AppendUvarint(append(b, 0), a.First)
		return binary.AppendUvarint(b, a.Last-a.First)
	}
	text, err := json.Marshal(refusal{a.Fault, a.State, a.Leader})
	if err != nil || len(text) > maxAnswer/2 {
		text, _ = json.Marshal(refusal{event.Refuse(a.Fault.Code, a.Fault.Reason, "try again", "the refusal cannot be told"), a.State, a.Leader})
	}
	return append(append(b, 1), text...)
}

func decodeAnswer(b []byte) (a answer, err error) {
	in := input{rest: b}
	a.ID = in.number()
	switch kind := in.number(); {
	case in.bad:
	case kind == 0:
		a.First = in.number()
		a.Last = a.First + in.number()
		in.bad = in.bad || len(in.rest) > 0 || a.First == 0 || a.Last < a.First
	case kind == 1:
		var r refusal
		if err := json.Unmarshal(in.rest, &r); err != nil || r.Fault == nil {
			return a, errUnreadable
		}
		a.Fault, a.State, a.Leader = r.Fault, r.State, r.Leader
	default:
		in.bad = true
	}
	if in.bad {
		return a, errUnreadable
	}
	return a, nil
}

// input takes a message apart. Once bad, it gives zero values.
type input struct {
	rest []byte
	bad  bool
}

func (in *input) number() uint64 {
	v, n := binary.Uvarint(in.rest)
	if n <= 0 {
		in.bad = true
	}
	if in.bad {
		return 0
	}
	in.rest = in.rest[n:]
	return v
}

func (in *input) bytes() []byte {
	n := in.number()
	if in.bad || n > uint64(len(in.rest)) {
		in.bad = true
		return nil
	}
	v := in.rest[:n:n]
	in.rest = in.rest[n:]
	return v
}
