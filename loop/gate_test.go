package loop

import (
	"testing"
	"testing/synctest"
)

// Promise: nobody is left waiting while there is room: a reader who gives up passes on the word that there is.
func TestGateWordIsPassedOn(t *testing.T) {
	for range 500 {
		synctest.Test(t, func(t *testing.T) {
			var g Gate
			g.init(Window{Messages: 1, Bytes: 1 << 40})
			g.arrived(1, 1)
			gone, answer := make(chan struct{}), make(chan bool, 1)
			go g.Wait(gone, nil)
			synctest.Wait()
			go func() { answer <- g.Wait(nil, nil) }()
			synctest.Wait()
			g.settled(1, 1) // wakes the first, who has been waiting for longer
			close(gone)
			synctest.Wait()
			select {
			case <-answer:
			default:
				t.Fatal("one waits though the window is empty")
			}
		})
	}
}
