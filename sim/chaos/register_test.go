package chaos

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// asked is what a client did to a register: a robot's label.
type asked struct {
	register int
	// write is the value that was written; "" for a read.
	write string
}

// saw is what came of it.
type saw struct {
	// value is what was read.
	value string
	// unknown: nobody knows whether the write happened.
	unknown bool
}

// registers is the model: each register holds the last value written.
func registers() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := map[int][]porcupine.Operation{}
			for _, op := range history {
				r := op.Input.(asked).register
				parts[r] = append(parts[r], op)
			}
			var out [][]porcupine.Operation
			for _, ops := range parts {
				out = append(out, ops)
			}
			return out
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			in, out := input.(asked), output.(saw)
			if in.write != "" {
				return true, in.write
			}
			return out.value == state.(string), state
		},
		DescribeOperation: func(input, output any) string {
			in, out := input.(asked), output.(saw)
			switch {
			case in.write == "":
				return fmt.Sprintf("read %d: %q", in.register, out.value)
			case out.unknown:
				return fmt.Sprintf("write %d %q: unknown", in.register, in.write)
			}
			return fmt.Sprintf("write %d %q", in.register, in.write)
		},
	}
}
