package propose

import (
	"bytes"
	"encoding/json"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Protocol is the id of the streams from a proposer to the leader.
const Protocol = "/skein/propose/1"

const (
	// maxRequest bounds one proposal on the wire: a batch of event.MaxBatchBytes
	// fits with room to spare. maxAnswer bounds one answer.
	maxRequest = wire.MaxBatch
	maxAnswer  = wire.MaxControl
)

// request is one proposal on its way to the leader.
type request struct {
	// ID is answered with; unique on its stream.
	ID uint64 `json:"id"`
	// Boot and N are the producer's; its node is the stream's other end.
	Boot uint64 `json:"boot"`
	N    uint64 `json:"n"`
	// Token is a person's; empty means that the node speaks for itself.
	Token string `json:"token,omitempty"`
	// Drafts is a list of event.Draft, kept encoded from try to try.
	Drafts json.RawMessage `json:"drafts"`
}

// answer is what became of a request: Fault, or the events it became.
type answer struct {
	ID    uint64 `json:"id"`
	First uint64 `json:"first,omitempty"`
	Last  uint64 `json:"last,omitempty"`
	// Fault is why it was refused.
	Fault *event.Fault `json:"fault,omitempty"`
	// State: the refusal is the replicated state's, given to this proposal and
	// after everything that was proposed before it.
	State bool `json:"state,omitempty"`
	// Leader is who leads instead, as far as the node knows that was asked.
	Leader ident.NodeID `json:"leader,omitempty"`
}

// encode is JSON that leaves the drafts' characters as they are: escaping those
// that matter in HTML could make a batch six times as long.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func decodeRequest(b []byte) (q request, drafts []event.Draft, err error) {
	if err = json.Unmarshal(b, &q); err == nil {
		err = json.Unmarshal(q.Drafts, &drafts)
	}
	return q, drafts, err
}

func decodeAnswer(b []byte) (a answer, err error) {
	err = json.Unmarshal(b, &a)
	return a, err
}
