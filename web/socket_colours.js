// Gives the pack's two socket types a colour, in both renderers. Without it they are grey; nothing else depends on it.
import { app } from "../../scripts/app.js"

const COLOURS = { DISCA_PREDICTOR: "#46d6ba", DISCA_SCHEDULE: "#ffab4a" }

app.registerExtension({
  name: "DisCa.SocketColours",
  setup() {
    const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`)
    const style = document.createElement("style") // Nodes 2.0
    style.textContent = `:root { ${rules.join(" ")} }`
    document.head.append(style)
  },
  nodeCreated() {
    // the classic canvas; each time, since a colour palette takes the colours of types it does not know when it is loaded
    Object.assign(app.canvas?.default_connection_color_byType ?? {}, COLOURS)
    Object.assign(LGraphCanvas.link_type_colors, COLOURS)
  },
})
