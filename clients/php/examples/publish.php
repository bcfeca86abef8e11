<?php

require __DIR__ . '/../autoload.php'; // or vendor/autoload.php of composer

$vestnik = new Vestnik\Client(getenv('VESTNIK_URL'), Vestnik\Credentials::bearer(getenv('VESTNIK_SECRET')));
$vestnik->watch(7, 'CRM_DEAL_1');
$vestnik->publish(['users' => [7]], 'chat', 'message', ['text' => 'Привет']);
$vestnik->publish(['tags' => ['CRM_DEAL_1']], 'crm', 'counter', ['value' => 3]);
echo json_encode($vestnik->config(7, 'shop.example')['server']), "\n";
