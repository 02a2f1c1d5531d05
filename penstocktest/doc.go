// Package penstocktest runs a plugin over messages in a test, in virtual time, and shows what it did with each.
//
//	func TestDelays(t *testing.T) {
//		p := penstock.Plugin{New: newDelays, Emits: []string{"late"}}
//		penstocktest.Run(t, p, []penstocktest.Case{
//			{Name: "on time", Message: penstocktest.Message{Payload: `{"delay":5}`}},
//			{Name: "late", Message: penstocktest.Message{Payload: `{"delay":90}`},
//				Emits: []penstocktest.Emit{{Stream: "late", Payload: `{"delay":90}`}}},
//			{Name: "no number", Message: penstocktest.Message{Payload: `{}`}, Want: penstocktest.Rejected},
//		})
//	}
//
// What is not a row of a table is written step by step, with [New], [Harness.Send], [Result.Next] and [Harness.Advance].
//
// # What is real
//
// The plugin is run by the actor and the loop that run it in a pipeline. So a retry comes back as attempt 2 after its backoff, what a
// failed attempt has emitted is discarded, a lease lapses, a panic fails its message and the plugin is made anew. Strict mode is on: what
// Handle is shown is a private copy that ends where memory ends, and is gone when Handle returns. A handler that uses such bytes later
// fails at the line that does it; the test then says which. (HandleBatch sees the messages where they lie,
// without that check.)
//
// # What is not
//
// Time stands still but for Advance and Next, and Env.Clock shows it. A plugin that has panicked is started again at once, however often.
// Messages are handled one after another: Workers, ByKey, Timeout and Mailbox of the plugin are not used. Dead letters are only counted.
package penstocktest
