import { Client } from '../src/index.js' // or '@vestnik/client'

const vestnik = new Client(process.env.VESTNIK_URL, { secret: process.env.VESTNIK_SECRET })
await vestnik.watch(7, 'CRM_DEAL_1')
await vestnik.publish({ recipients: { users: [7] }, module_id: 'chat', command: 'message', params: { text: 'Привет' } })
await vestnik.publish({ recipients: { tags: ['CRM_DEAL_1'] }, module_id: 'crm', command: 'counter', params: { value: 3 } })
console.log(JSON.stringify((await vestnik.config(7, 'shop.example')).server))
