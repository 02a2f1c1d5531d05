package main

import "slices"

// figures are all that there are.
func figures() []figure {
	return slices.Concat(fanOutFigures(), exceptionFigures(), latencyFigures(), blockedFigures(), heldFigures(),
		tcpFigures(), idleFigures(), httpFigures(), filterFigures(), reloadFigures())
}
