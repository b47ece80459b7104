package propose

import (
	"io"

	"skein/consensus/event"
	"skein/mesh/wire"
)

// Protocol is the id of the streams from a proposer to the leader.
const Protocol = "/skein/propose/1"

const (
	// maxRequest bounds one proposal on the wire, maxAnswer one answer.
	maxRequest = 1 << 20
	maxAnswer  = 16 << 10
)

// request is one proposal on its way to the leader.
type request struct {
	// ID is answered with; unique on its stream.
	ID uint64 `json:"id"`
	// Boot and N are the producer's; its node is the stream's other end.
	Boot uint64 `json:"boot"`
	N    uint64 `json:"n"`
	// Token is a person's; empty means that the node speaks for itself.
	Token  string        `json:"token,omitempty"`
	Drafts []event.Draft `json:"drafts"`
}

// answer is what became of a request: Fault, or the events it became.
type answer struct {
	ID    uint64       `json:"id"`
	First uint64       `json:"first,omitempty"`
	Last  uint64       `json:"last,omitempty"`
	Fault *event.Fault `json:"fault,omitempty"`
}

func readRequest(r io.Reader) (request, error) {
	var q request
	err := wire.ReadJSON(r, &q, maxRequest)
	return q, err
}

func readAnswer(r io.Reader) (answer, error) {
	var a answer
	err := wire.ReadJSON(r, &a, maxAnswer)
	return a, err
}
