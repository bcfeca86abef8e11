// The overview: asks for samples once a second while it can be seen, and draws the last ten minutes.
import { get } from './page.js'
import uPlot from './uplot.js'

const data = JSON.parse(document.getElementById('dashboard-data').textContent)
const byId = id => document.getElementById(id)
const language = document.documentElement.lang
const SAMPLES_MAX = 600
/** At least so much time is drawn, seconds. */
const SPAN_S = 60

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 })
const short = new Intl.NumberFormat(language, { notation: 'compact', maximumFractionDigits: 1 })
const fine = new Intl.NumberFormat(language, { maximumFractionDigits: 2 })

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  for (; count >= 1024 && unit < units.length - 1; unit++) count /= 1024
  return `${fine.format(count)} ${units[unit]}`
}

/** Times, then one list for each line drawn. */
const series = { at: [], published: [], delivered: [], bytes: [], websocket: [], polling: [], p50: [], p95: [], p99: [] }
let last = null
let number = 0

const clock = at => new Date(at * 1000).toLocaleTimeString(language === 'en' ? 'en-GB' : language)
const sum = object => Object.values(object).reduce((all, value) => all + value, 0)
const ofWay = (connections, way) => Object.entries(connections)
  .reduce((all, [name, count]) => name.startsWith(`${way}.`) ? all + count : all, 0)

function take(sample) {
  const { counters, connections, latency } = sample
  const polling = ofWay(connections, 'poll') + ofWay(connections, 'between')
  const rate = name => {
    if (!last) return 0
    const seconds = (sample.at - last.at) / 1000
    return seconds > 0 ? Math.max(0, counters[name] - last.counters[name]) / seconds : 0
  }
  const values = {
    at: sample.at / 1000,
    published: rate('published'),
    delivered: rate('delivered'),
    bytes: rate('publishedBytes'),
    websocket: ofWay(connections, 'websocket'),
    polling,
    p50: latency[0], p95: latency[1], p99: latency[2]
  }
  for (const [name, list] of Object.entries(series)) {
    list.push(values[name])
    if (list.length > SAMPLES_MAX) list.shift()
  }
  last = sample
  return values
}

// --- charts

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

const CHARTS = [
  ['chart-messages', ['published', 'delivered'], value => short.format(value)],
  ['chart-connections', ['websocket', 'polling'], value => short.format(value)],
  ['chart-latency', ['p50', 'p95', 'p99'], value => `${fine.format(value)} ms`],
  ['chart-bytes', ['bytes'], value => bytes(value)]
]
const NAMES = { ...data.series, websocket: data.ways.websocket, polling: data.ways.poll, p50: '50 %', p95: '95 %', p99: '99 %' }
const LINES = ['--line-1', '--line-2', '--line-3']
const charts = new Map()
/** Charts that somebody has zoomed into stay where they are. */
const zoomed = new Set()

function draw() {
  for (const chart of charts.values()) chart.destroy()
  charts.clear()
  for (const [id, names, format] of CHARTS) {
    const place = byId(id)
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' }
    const chart = new uPlot({
      width: place.clientWidth,
      height: 200,
      cursor: { drag: { x: true, y: false } },
      legend: { live: true },
      scales: { x: { time: true, range: (_, min, max) => [Math.min(min, max - SPAN_S), max] }, y: { range: (_, min, max) => [0, Math.max(max ?? 0, 1) * 1.1] } },
      axes: [{ ...axis, size: 28, space: 70, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 62, values: (_, ticks) => ticks.map(format) }],
      series: [
        { label: data.time, value: (_, at) => at === null || at === undefined ? '–' : clock(at) },
        ...names.map((name, index) => ({
          label: NAMES[name], stroke: colour(LINES[index]), width: 1.6, points: { show: false }, spanGaps: true,
          value: (_, value) => value === null || value === undefined ? '–' : format(value)
        }))
      ],
      hooks: {
        setSelect: [() => {
          zoomed.add(id)
          document.querySelector(`[data-zoom-out=${id}]`).hidden = false
        }]
      }
    }, [series.at, ...names.map(name => series[name])], place)
    charts.set(id, chart)
  }
}

function redraw() {
  for (const [id, names] of CHARTS) {
    charts.get(id)?.setData([series.at, ...names.map(name => series[name])], !zoomed.has(id))
  }
}

for (const button of document.querySelectorAll('[data-zoom-out]')) {
  button.addEventListener('click', () => {
    zoomed.delete(button.dataset.zoomOut)
    button.hidden = true
    redraw()
  })
}

new ResizeObserver(() => {
  for (const [id, chart] of charts) chart.setSize({ width: byId(id).clientWidth, height: 200 })
}).observe(byId('chart-messages'))
document.addEventListener('themechange', draw)
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw)

// --- figures and tables

function figure(id, value, more) {
  byId(`figure-${id}`).textContent = value
  byId(`figure-${id}-more`).textContent = more || '\u00a0'
}

function fill(id, rows) {
  const body = byId(`table-${id}`).tBodies[0]
  const cells = rows.length > 0 ? rows : [[data.nothing]]
  body.replaceChildren(...cells.map(row => {
    const line = document.createElement('tr')
    line.append(...row.map((value, index) => {
      const cell = document.createElement('td')
      cell.textContent = typeof value === 'number' ? whole.format(value) : value
      if (index > 0 && index === row.length - 1) cell.className = 'number'
      if (row.length === 1) cell.colSpan = 9
      return cell
    }))
    return line
  }))
}

function show(values, live) {
  const perSecond = count => `${short.format(count)}/s`
  figure('connections', whole.format(sum(last.connections)), `WebSocket ${whole.format(values.websocket)} · poll ${whole.format(values.polling)}`)
  figure('published', perSecond(values.published), `${bytes(values.bytes)}/s`)
  figure('delivered', perSecond(values.delivered), `Σ ${short.format(last.counters.delivered)}`)
  figure('latency', values.p99 === null ? '–' : `${fine.format(values.p99)} ms`, values.p50 === null ? '' : `50 %: ${fine.format(values.p50)} ms`)
  figure('history', short.format(last.historyMessages), bytes(last.historyBytes))
  figure('waiting', whole.format(last.waiting), `${data.behind}: ${whole.format(last.behind)}`)
  byId('memory').textContent = bytes(last.memory)
  fill('forms', Object.entries(last.connections).sort((a, b) => b[1] - a[1]).map(([name, count]) => {
    const [way, form] = name.split('.')
    return [data.ways[way], data.forms[form], count]
  }))
  fill('refusals', last.refusals.map((count, index) => [data.refusals[index], count]).filter(([, count]) => count > 0))
  fill('top', live.top)
  fill('kinds', live.kinds)
  fill('nodes', live.nodes ?? [])
}

// --- once a second, as long as somebody looks

async function look() {
  if (!document.hidden) {
    const live = await get(`/admin/live?after=${number}`)
    number = live.number
    let values = null
    for (const sample of live.samples) values = take(sample)
    if (values) {
      if (charts.size === 0) draw()
      redraw()
      show(values, live)
      document.body.dataset.samples = String(series.at.length)
    }
  }
}

for (;;) {
  try {
    await look()
  } catch (error) {
    console.warn(error.message)
  }
  await new Promise(done => setTimeout(done, 1000))
}
