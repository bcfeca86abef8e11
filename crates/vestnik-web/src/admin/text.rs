//! Every text of the pages, in both languages. Labels of the settings page are those of
//! settings-page.md, which `§`-ids name.

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Russian,
}

impl Language {
    pub(crate) const ALL: [Self; 2] = [Self::English, Self::Russian];

    /// Its tag: `en`, `ru`.
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Russian => "ru",
        }
    }

    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.tag() == tag)
    }

    /// The first known one of an `Accept-Language` header; English if it names none.
    pub(crate) fn accepted(header: &str) -> Self {
        let tags =
            header.split(',').map(|it| it.split([';', '-']).next().unwrap_or_default().trim());
        tags.filter_map(Self::of_tag).next().unwrap_or(Self::English)
    }
}

/// A text. Having both languages is its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    en: &'static str,
    ru: &'static str,
}

impl Text {
    pub(crate) const fn new(en: &'static str, ru: &'static str) -> Self {
        Self { en, ru }
    }

    /// The text in `language`.
    pub(crate) const fn r#in(self, language: Language) -> &'static str {
        match language {
            Language::English => self.en,
            Language::Russian => self.ru,
        }
    }
}

macro_rules! texts {
    ($($name:ident $en:literal $ru:literal;)*) => {
        $(pub(crate) const $name: Text = Text::new($en, $ru);)*
        #[cfg(test)]
        const ALL: &[(&str, Text)] = &[$((stringify!($name), $name),)*];
    };
}

texts! {
    // Frame.
    PRODUCT "Push and Pull" "Push and Pull";
    SKIP "Skip to content" "Перейти к содержанию";
    NAV "Main menu" "Главное меню";
    NAV_DASHBOARD "Overview" "Обзор";
    NAV_SETTINGS "Settings" "Настройки";
    NAV_CONNECTIONS "Connections" "Подключения";
    NAV_SITES "Sites and modules" "Сайты и модули";
    NAV_TENANTS "Tenants" "Клиенты";
    NAV_ADMINISTRATORS "Administrators" "Администраторы";
    NAV_SECRETS "Secrets of back ends" "Секреты серверных приложений";
    NAV_AUDIT "Audit log" "Журнал изменений";
    LANGUAGE "Language" "Язык";
    THEME "Colours" "Оформление";
    THEME_AUTO "As the system" "Как в системе";
    THEME_LIGHT "Light" "Светлое";
    THEME_DARK "Dark" "Тёмное";
    SIGN_OUT "Sign out" "Выйти";
    READ_ONLY "You may look, but not change anything: your right is R." "Вы можете смотреть, но не менять: у вас право R.";
    CANCEL "Cancel" "Отмена";

    DELETE "Delete" "Удалить";
    NAME "Name" "Название";
    NOTHING_YET "Nothing yet" "Пока пусто";
    DEEDS "Actions" "Действия";
    STATE "State" "Состояние";
    SINCE "Since" "С";
    IN_USE "in use" "используется";
    NOT_IN_USE "not in use" "не используется";
    DONE "Done." "Готово.";
    BAD_ID "An id has 1 to 50 letters, digits, “.”, “_” and “-”." "Идентификатор — от 1 до 50 латинских букв, цифр, «.», «_» и «-».";

    // Sites, modules, tenants.
    SITES_LEAD "Sites whose pages use push, and the modules that want it." "Сайты, страницы которых используют push, и модули, которым он нужен.";
    SITES "Sites" "Сайты";
    SITE_HOST "Host name" "Имя узла";
    MODULES "Modules" "Модули";
    MODULES_LEAD "The module is active as soon as one of these wants push. Back ends register theirs themselves." "Модуль активен, как только push нужен хотя бы одному из них. Сайты регистрируют свои модули сами.";
    MODULE_WHERE "Where" "Где";
    MODULE_PUBLIC "public pages" "публичная часть";
    MODULE_ADMIN "administration" "административная часть";
    TENANTS_LEAD "Customers of this installation. Each has keys, options and channels of its own." "Клиенты этой установки. У каждого свои ключи, настройки и каналы.";

    // Administrators and the audit log.
    ADMINISTRATORS_LEAD "Who may use these pages. Passwords are made here and shown once." "Кто может пользоваться этими страницами. Пароли создаются здесь и показываются один раз.";
    RIGHT "Right" "Право";
    RIGHT_READ "R: look" "R: просмотр";
    RIGHT_WRITE "W: change" "W: изменение";
    ADMINISTRATOR_SAVE "Add, or give a new password" "Добавить или выдать новый пароль";
    ADMINISTRATOR_PASSWORD "Write it down, it is not shown again. The password of" "Запишите: больше он не будет показан. Пароль администратора";
    SECRETS_LEAD "With such a secret a program calls the module at /module/: header Authorization: Bearer. Each is made here and shown once." "С таким секретом программа обращается к модулю по адресу /module/: заголовок Authorization: Bearer. Секрет создаётся здесь и показывается один раз.";
    SECRET_MAKE "Make a secret" "Создать секрет";
    SECRET_MADE "Write it down, it is not shown again. The secret" "Запишите: больше он не будет показан. Секрет";
    SECRET_BACK_END "Back end" "Серверное приложение";
    SECRET_ADMINISTRATOR "Back end and settings" "Серверное приложение и настройки";
    SECRET_BAD_NAME "A name has 1 to 100 bytes." "Имя занимает от 1 до 100 байт.";
    SECRET_TOO_MANY "There are too many secrets: remove some first." "Секретов слишком много: сначала удалите ненужные.";
    LAST_ADMINISTRATOR "This is the last administrator who may write." "Это последний администратор с правом записи.";
    BAD_LOGIN "There is no such login, or it has other signs than letters, digits, “.”, “_”, “-” and “@”." "Такого логина нет, либо в нём есть знаки кроме латинских букв, цифр, «.», «_», «-» и «@».";
    AUDIT_LEAD "What was changed, when and by whom. Keys are masked." "Что, когда и кем было изменено. Ключи скрыты.";
    AUDIT_LAST "The last 200 changes" "Последние 200 изменений";
    WHEN "When" "Когда";
    WHO "Who" "Кто";
    WHAT "What" "Что";
    BEFORE "Before" "Было";
    AFTER "After" "Стало";

    // Overview.
    DASHBOARD_LEAD "What this server is doing now; the charts show up to ten minutes. Drag over a chart to zoom." "Что сервер делает сейчас; графики показывают до десяти минут. Выделите участок графика, чтобы увеличить его.";
    FIGURE_CONNECTIONS "Connections" "Подключения";
    FIGURE_PUBLISHED "Published" "Опубликовано";
    FIGURE_DELIVERED "Delivered" "Доставлено";
    FIGURE_LATENCY "Delivery, 99 %" "Доставка, 99 %";
    FIGURE_HISTORY "History" "История";
    FIGURE_WAITING "Waiting" "В очереди";
    BEHIND "connections" "подключений";
    CHART_MESSAGES "Messages per second" "Сообщений в секунду";
    CHART_CONNECTIONS "Connections by transport" "Подключения по способу";
    CHART_LATENCY "Time to everybody connected" "Время доставки всем подключённым";
    CHART_BYTES "Published bytes per second" "Опубликовано байт в секунду";
    ZOOM_OUT "Zoom out" "Весь график";
    SERIES_PUBLISHED "published" "опубликовано";
    SERIES_DELIVERED "delivered" "доставлено";
    SERIES_BYTES "bytes" "байты";
    TABLE_FORMS "Transports and generations" "Способы и поколения";
    TABLE_REFUSALS "Refusals since the start" "Отказы с момента запуска";
    TABLE_TOP "Channels with most connections" "Каналы с наибольшим числом подключений";
    TABLE_NODES "Nodes" "Узлы";
    COLUMN_CHANNELS "Channels" "Каналы";
    TABLE_KINDS "Message types today" "Типы сообщений за сегодня";
    COLUMN_WAY "Transport" "Способ";
    COLUMN_FORM "Format" "Формат";
    COLUMN_COUNT "Count" "Количество";
    COLUMN_REASON "Reason" "Причина";
    COLUMN_CHANNEL "Channel" "Канал";
    COLUMN_CONNECTIONS "Connections" "Подключения";
    COLUMN_KIND "Type" "Тип";
    WAY_WEBSOCKET "WebSocket" "WebSocket";
    WAY_POLL "Long polling" "Long polling (опрос)";
    WAY_BETWEEN "Between two polls" "Между двумя опросами";
    FORM_TEXT "text (generation 3)" "текст (поколение 3)";
    FORM_PROTOBUF "protobuf (generation 4)" "protobuf (поколение 4)";
    FORM_JSON_RPC "JSON-RPC (generation 5)" "JSON-RPC (поколение 5)";
    FORM_JSON "JSON" "JSON";
    FORM_UNKNOWN "by request" "по запросу";
    REFUSED_CONNECTIONS "connections: too many" "подключения: слишком много";
    REFUSED_SUBSCRIPTIONS "subscriptions: wrong channel id" "подписки: неверный номер канала";
    REFUSED_PUBLISHES "publishes answered with an error" "публикации с ошибкой";
    DROPPED_PUBLISHES "publishes to nobody, or empty" "публикации никому или пустые";
    REFUSED_UNTRUSTED "trusted routes: foreign address" "доверенные пути: чужой адрес";
    REFUSED_API "JSON-RPC of sites: wrong signature" "JSON-RPC сайтов: неверная подпись";
    REFUSED_FOR_MEMORY "memory over its limit" "память исчерпана";
    RATE_LIMITED_SUBSCRIPTIONS "subscriptions: too fast" "подписки: слишком часто";
    RATE_LIMITED_PUBLISHES "publishes: too fast" "публикации: слишком часто";
    EVICTED "closed by the limit per channel" "закрыты по ограничению на канал";
    SLOW "closed: read too slowly" "закрыты: читали слишком медленно";
    RECOVERY_GAPS "returned too late for the history" "вернулись слишком поздно для истории";
    NOT_STORED "messages that could not be stored" "сообщения, которые не удалось сохранить";
    HEALTH "Health" "Состояние узла";
    NODE "Node" "Узел";
    ENGINE "History" "Хранилище истории";
    SERVER_ON "on" "включён";
    MEMORY "Memory" "Память";

    // Connections.
    CONNECTIONS_LEAD "Who is connected, since when, and what was sent to them." "Кто подключён, с какого времени и что ему было отправлено.";
    FIND "Find" "Найти";
    FIND_WHAT "Number of a user, or id of a channel" "Номер пользователя или идентификатор канала";
    FIND_NONSENSE "This is neither the number of a user nor the id of a channel." "Это не номер пользователя и не идентификатор канала.";
    CONNECTED "Connected now" "Подключены сейчас";
    NOBODY_CONNECTED "Nobody is connected." "Никто не подключён.";
    ADDRESS "Address" "Адрес";
    LISTENS_TO "Listens to" "Слушает";
    DISCONNECT "Disconnect" "Отключить";
    DISCONNECTED "The connection was closed. Its client comes back by itself if it still may." "Подключение закрыто. Клиент вернётся сам, если ему это всё ещё разрешено.";
    CONNECTION_GONE "The connection was gone already." "Подключения уже нет.";
    ONLY_SOME "Only the first 200 are shown: search for a user or a channel." "Показаны только первые 200: найдите пользователя или канал.";
    SENT "Sent lately" "Отправлено недавно";
    SENT_LEAD "Messages that are still kept: ids, types and sizes." "Сообщения, которые ещё хранятся: номера, типы и размеры.";
    BYTES "Bytes" "Байт";
    BODY "Message" "Сообщение";
    SEND_EVENT "Send a test event" "Отправить тестовое событие";
    SEND_EVENT_LEAD "To everybody who listens to what was searched for. Its type is" "Всем, кто слушает найденное. Его тип —";
    SEND_EVENT_TEXT "Text" "Текст";
    SEND "Send" "Отправить";
    EVENT_SENT "The event was sent." "Событие отправлено.";
    EVENT_FAILED "The event was not sent." "Событие не отправлено.";

    // Signing in.
    SIGN_IN "Sign in" "Войти";
    SIGN_IN_TITLE "Administration of the push server" "Управление сервером Push and Pull";
    LOGIN "Login" "Логин";
    PASSWORD "Password" "Пароль";
    SIGN_IN_WRONG "Login or password is wrong." "Неверный логин или пароль.";
    SIGN_IN_TOO_OFTEN "Too many attempts from your address. Wait a few minutes." "Слишком много попыток с вашего адреса. Подождите несколько минут.";
    SIGN_IN_HELP "The first password was printed when the server was first started. Set a new one with" "Первый пароль был напечатан при первом запуске сервера. Новый задаётся командой";
    SESSION_OVER "Your session has ended. Sign in again; what you have entered is kept." "Ваш сеанс завершён. Войдите снова: введённые данные сохранены.";
    SESSION_RESUMED "You are signed in again. Your changes are back in the form and not saved yet." "Вы снова вошли. Ваши изменения возвращены в форму и ещё не сохранены.";
    FORM_EXPIRED "This form was not sent from a page of yours. Nothing was changed; please try again." "Форма отправлена не с вашей страницы. Ничего не изменено, попробуйте ещё раз.";
    FORBIDDEN "Your right does not allow this." "У вас нет права на это действие.";
    UNKNOWN_PROXY_USER "The proxy says who you are, but there is no administrator of that login:" "Прокси-сервер сообщил, кто вы, но такого администратора нет:";
    NOT_FOUND "There is no such page." "Такой страницы нет.";
    BACK_TO_START "To the overview" "К обзору";
    DATABASE_GONE "The database does not answer. Nothing was changed; try again in a moment." "База данных не отвечает. Ничего не изменено, попробуйте чуть позже.";

    // Settings: frame, S-33 to S-37.
    SETTINGS_TITLE "Module Settings" "Настройка параметров модуля";
    SETTINGS_LEAD "How sites and browsers reach the queue server. Changes take effect at once, without a restart." "Как сайты и браузеры связываются с сервером очередей. Изменения действуют сразу, без перезапуска.";
    SAVE "Save" "Сохранить";
    RESET "Reset" "Сбросить";
    DEFAULTS "Defaults" "По умолчанию";
    DEFAULTS_ASK "Restore the defaults?" "Восстановить значения по умолчанию?";
    DEFAULTS_WHAT "All values set on this page are taken away, so that those of the configuration and the built-in ones count. The queue server will then be off unless the configuration says otherwise." "Все значения, заданные на этой странице, будут удалены, и вступят в силу значения из конфигурации и встроенные. Сервер очередей будет выключен, если в конфигурации не указано иное.";
    SAVED "Saved. Connected clients were told to fetch their configuration again." "Сохранено. Подключённым клиентам отправлено уведомление обновить конфигурацию.";
    DEFAULTS_RESTORED "The defaults are back in force. Connected clients were told." "Значения по умолчанию восстановлены. Подключённые клиенты уведомлены.";
    NOT_SAVED "Nothing was saved: please correct the marked fields." "Ничего не сохранено: исправьте отмеченные поля.";
    UNSAVED "There are unsaved changes" "Есть несохранённые изменения";
    DOCUMENTATION "Read more on installing and using the queue server here: online help." "Прочитать подробно об установке и настройке «Сервера очередей» вы можете в документации.";
    EDITIONS "In 1C-Bitrix the module is not available in the editions Standard and Start; this server works with every edition that has it." "В «1С-Битрикс» модуль недоступен в редакциях: Стандарт, Старт; этот сервер работает с каждой редакцией, где модуль есть.";

    // Where a value comes from, S-49.
    SOURCE_PINNED "set in the configuration of the server" "задано в конфигурации сервера";
    SOURCE_PINNED_HINT "The configuration file says what it is, so it cannot be changed here." "Значение задано в файле конфигурации, здесь его изменить нельзя.";
    SOURCE_DATABASE "database" "база данных";
    SOURCE_FILE "file" "файл";
    SOURCE_GENERATED "generated at the first start" "создано при первом запуске";
    SOURCE_BUILT_IN "built-in" "встроенное";

    // Common part, S-01 to S-07.
    STATUS "Module status" "Состояние модуля";
    STATUS_ACTIVE "Active" "Активен";
    STATUS_INACTIVE "Inactive" "Не активен";
    STATUS_INACTIVE_HINT "No module has registered yet that wants to use push." "Пока не зарегистрирован ни один модуль, использующий push.";
    USED_BY "Use modules" "Используют модули";
    SERVER_STATE "Queue server" "Сервер очередей";
    SERVER_OFF "off" "выключен";
    SERVER_REACHABLE "reachable" "доступен";
    SERVER_UNREACHABLE "its history store is not connected" "хранилище истории не подключено";
    SERVER_GENERATION "generation" "поколение";
    BREAKER_CLOSED "sending works" "отправка работает";
    BREAKER_OPEN "sending is paused after errors" "отправка приостановлена после ошибок";
    LAST_ERROR "last error" "последняя ошибка";
    PUSH "Send PUSH notifications to mobile devices" "Отправлять PUSH уведомления на мобильные телефоны";
    PUSH_PER_HIT "Maximum number of push notifications to send simultaneously" "Максимальное количество push-уведомлений в пакете при отправке";
    PUSH_PER_HIT_HINT "Devices of one service in one request; 0: no limit." "Устройств одного сервиса в одном запросе; 0 — без ограничения.";
    GUEST "Enable module for anonymous users" "Включить модуль для не авторизованных пользователей";
    GUEST_HINT "User information provided by Web Analytics module" "Данные о пользователе предоставляет модуль \"Веб-аналитика\"";
    GUEST_HINT_OURS "Any back end may supply guest ids: negative numbers get channels of their own." "Номера гостей может сообщать любой сайт: отрицательные номера получают собственные каналы.";
    USE_SERVER "Use Push server" "Использовать \"Push server\"";
    CHOICE_NOTHING "(don't use)" "(не использовать)";
    CHOICE_CLOUD "Use Bitrix cloud server" "Использовать облачный сервер \"1С-Битрикс\"";
    CHOICE_LOCAL "Use local server" "Использовать сервер, установленный локально";
    NO_SERVER_NOTE "Bitrix24 requires the Bitrix cloud server, or an installed and properly configured local server." "Для корректной работы Bitrix24 необходимо либо установить и настроить сервер локально, либо воспользоваться облачным сервером 1С-Битрикс";

    // Cloud, S-08 to S-12.
    CLOUD "Cloud server" "Облачный сервер";
    CLOUD_REGISTRATION "Register on cloud server" "Регистрация на облачном сервере";
    CLOUD_ACTIVE "Active" "Активна";
    CLOUD_INACTIVE "Inactive" "Неактивна";
    CLOUD_ERROR "Error" "Ошибка";
    CLOUD_ADDRESS "Server address" "Адрес сервера";
    CLOUD_REGISTER_AT "Register on server" "Зарегистрироваться на сервере";
    CLOUD_AUTO "(auto select server)" "(автоматический выбор сервера)";
    CLOUD_LIST_LOADING "The list of servers is being loaded…" "Загружается список серверов…";
    CLOUD_REGISTER "Register" "Зарегистрироваться";
    CLOUD_LICENCE "Note: a valid license is required to use cloud servers." "Обратите внимание, для работы с облачным сервером требуется активная лицензия";
    CLOUD_KEPT "The mode in force before was kept." "Прежний режим работы сохранён.";

    // Local server, S-13 to S-29.
    LOCAL "Local server" "Локальный сервер";
    SOFTWARE "Server software" "На сервер установлена";
    SOFTWARE_5 "Bitrix Virtual Appliance 7.6 and later (Bitrix Push server 3.0)" "Виртуальная машина 7.6 и новее (Bitrix Push server 3.0)";
    SOFTWARE_4 "Virtual Appliance 7.3 - 7.5 (Bitrix Push server 2.0)" "Виртуальная машина 7.3 - 7.5 (Bitrix Push server 2.0)";
    SOFTWARE_3 "Virtual Appliance 7.1 - 7.2 (Bitrix Push server 1.0)" "Виртуальная машина 7.1 - 7.2 (Bitrix Push server 1.0)";
    SOFTWARE_2 "Virtual Appliance 4.4 and later (nginx-push-stream-module 0.4.0)" "Виртуальная машина 4.4 и выше (nginx-push-stream-module 0.4.0)";
    SOFTWARE_1 "Virtual Appliance 4.2 - 4.3 (nginx-push-stream-module 0.3.4)" "Виртуальная машина 4.2 - 4.3 (nginx-push-stream-module 0.3.4)";
    SOFTWARE_JSON_RPC "JSON-RPC" "JSON-RPC";
    SOFTWARE_RECOMMENDED "recommended" "рекомендуется";
    OUTDATED "outdated" "устарела";
    OUTDATED_NOTE "Server versions below 2.0 are no longer supported. Use Bitrix Push server 2.0 or later, or connect to the cloud server." "Версии сервера ниже 2.0 больше не поддерживаются. Используйте Bitrix Push server 2.0 и выше или подключите облачный сервер.";
    OUTDATED_MORE "Details." "Подробнее.";
    OUTDATED_1_NOTE "With 0.3.4 WebSocket and mass sending are not available; 0.4.0 or, better, a machine of version 7.x is recommended." "С версией 0.3.4 недоступны WebSocket и массовая отправка; рекомендуется 0.4.0, а лучше — машина версии 7.x.";
    SERVER_PUBLISH "Server command publish URL" "Настройка адреса для публикации команд со стороны сервера";
    PATH_TO_PUBLISH "Message sender path" "Путь для публикации команд";
    PATH_TO_JSON_RPC "Path for executing JSON-RPC queries" "Путь для выполнение JSON-RPC запросов";
    SIGNATURE_KEY "Signature code for server interaction" "Код-подпись для взаимодействия с сервером";
    SIGNATURE_KEY_MISSING "Signature key is required to negotiate with server." "Необходимо задать код-подпись для взаимодействия с сервером.";
    SIGNATURE_KEY_HINT "A random string of 32 characters or more; the same as in the settings of the site." "Случайная строка из 32 и более символов; та же, что в настройках сайта.";
    SIGNATURE_ALGO "Signature algorithm" "Алгоритм подписи";
    KEY_GENERATE "Generate" "Создать";
    KEY_COPY "Copy" "Копировать";
    KEY_COPIED "Copied" "Скопировано";
    KEY_SHOW "Show" "Показать";
    KEY_HIDE "Hide" "Скрыть";
    KEY_STRONG "strong key" "надёжный ключ";
    KEY_WEAK "weak key: use 32 random characters or more" "слабый ключ: нужно не менее 32 случайных символов";
    KEY_SECRET "There is a key; it is shown to those who may write." "Ключ задан; его видят те, у кого есть право записи.";
    KEY_EMPTY_CONFIRM "Save without a key: anybody who knows a channel id may listen" "Сохранить без ключа: слушать сможет любой, кто знает номер канала";
    CLIENT_PUBLISH "Client command publish URL" "Настройка адреса для публикации команд со стороны клиента";
    PUBLISH_WEB "Command publish URL (HTTP)" "Путь для публикации команд (HTTP)";
    PUBLISH_WEB_SECURE "Command publish URL (HTTPS)" "Путь для публикации команд (HTTPS)";
    PUBLISH_WEB_NOTE "This setting will be used with browsers lacking WebSocket support." "Настройка будет использована браузерами без поддержки WebSocket.";
    READING "Command reading URL for modern browsers" "Настройка адреса чтения команд для браузеров";
    LISTENER "Message listener path (HTTP)" "Путь для чтения команд (HTTP)";
    LISTENER_SECURE "Message listener path (HTTPS)" "Путь для чтения команд (HTTPS)";
    LISTENER_NOTE "The standard port for HTTP or HTTPS is recommended. Use 8893 (HTTP) and 8894 (HTTPS) only for nginx-push-stream-module 0.3.4." "Рекомендуется использовать стандартный порт для HTTP или HTTPS. Используйте 8893 (HTTP) и 8894 (HTTPS) только для версии модуля nginx-push-stream-module 0.3.4";
    WEBSOCKET_READING "Command reading URL for Web Socket enabled browsers" "Настройка адреса чтения команд для браузеров с поддержкой WebSocket";
    WEBSOCKET "Enable WebSocket" "Включить поддержку WebSocket";
    WEBSOCKET_ALWAYS "always on since Push server 1.0" "всегда включено начиная с Push server 1.0";
    WEBSOCKET_NEVER "not available with nginx-push-stream-module 0.3.4" "недоступно с nginx-push-stream-module 0.3.4";
    WEBSOCKET_CHECK "Make sure first that the queue server is configured for WebSocket." "Перед включением этой опции убедитесь, что «Сервер очередей» настроен на поддержку WebSocket.";
    PATH_WEBSOCKET "WebSocket message listener path (HTTP)" "Путь для чтения команд через WebSocket (HTTP)";
    PATH_WEBSOCKET_SECURE "WebSocket message listener path (HTTPS)" "Путь для чтения команд через WebSocket (HTTPS)";
    WEBSOCKET_NOTE "This configuration is for all modern browsers. Long pooling will be used for earlier versions." "Настройка будет использована всеми современными браузерами, для более ранних версий будет использована технология Long pooling.";
    MACROS "#DOMAIN# becomes the domain of the site, which is needed where a server has several: http://#DOMAIN#:8893/bitrix/sub/. #PORT# becomes :8893 or :8894 for nginx-push-stream-module 0.3.4 and nothing otherwise. Both work in every address on this page." "#DOMAIN# заменяется доменом сайта, что нужно в многодоменной конфигурации: http://#DOMAIN#:8893/bitrix/sub/. #PORT# заменяется на :8893 или :8894 для nginx-push-stream-module 0.3.4, иначе на пустую строку. Оба работают во всех адресах на этой странице.";
    PREVIEW "For the sites" "Для сайтов";
    EMPTY_IS_DEFAULT "Empty: back to the default" "Пусто: вернуть значение по умолчанию";
    OWN_ADDRESSES "Fill in the addresses of this server" "Подставить адреса этого сервера";

    // Sites, S-30 and S-31.
    EXCLUDE "Exclude sites" "Блокировка работы с модулем на определенных сайтах";
    EXCLUDE_SITES "Don't use the module on websites" "Не использовать модуль на сайтах";
    EXCLUDE_HINT "Nothing selected: the module works on every site." "Ничего не выбрано: модуль работает на всех сайтах.";

    // Older pages, S-38 to S-45.
    OUTDATED_SERVERS "Outdated servers" "Устаревшие серверы";
    OUTDATED_LEAD "Fields of older settings pages. Old sites, browsers and mobile apps still read these options." "Поля прежних страниц настроек. Эти опции всё ещё читают старые сайты, браузеры и мобильные приложения.";
    NGINX "“Push server” is installed and active on the server" "На сервере установлен и активирован «Push server»";
    NGINX_FOLLOWS "Follows the choice “Use Push server” above; install the queue server before switching it on." "Следует выбору «Использовать Push server» выше; перед включением необходимо установить «Сервер очередей».";
    COMMANDS_PER_HIT "Maximum number of commands to send while connected to server" "Максимальное кол-во отправленных команд за одно подключение к серверу";
    COMMANDS_PER_HIT_HINT "Depends on large_client_header_buffers of nginx; 100 fit the usual 8k." "Зависит от large_client_header_buffers в nginx; 100 рассчитано на 8k.";
    OLD_LISTENER "Command reading URL for outdated browsers (HTTP)" "Путь для чтения команд для старых версий браузеров (HTTP)";
    OLD_LISTENER_SECURE "Command reading URL for outdated browsers (HTTPS)" "Путь для чтения команд для старых версий браузеров (HTTPS)";
    MOBILE_LISTENER "Path for reading messages in the mobile app (HTTP)" "Путь для чтения команд на мобильном приложении (HTTP)";
    MOBILE_LISTENER_SECURE "Path for reading messages in the mobile app (HTTPS)" "Путь для чтения команд на мобильном приложении (HTTPS)";
    MOBILE_LISTENER_HINT "Always use non-standard ports for mobile apps: not all phones support long polling on the standard port." "Для мобильных приложений всегда используйте нестандартные порты: не все телефоны поддерживают long polling на стандартном.";
    HEADERS "Clients may read headers of answers" "Клиенты могут читать заголовки ответов";

    CLOUD_LIST_ERROR "Error getting server list. Please make sure the address #HOST# is accessible." "Ошибка получения списка серверов. Проверьте доступность адреса #HOST# с вашего портала";

    // The check of the connection, S-63.
    CHECK "Check of the connection" "Проверка соединения";
    CHECK_START "Check" "Проверить";
    CHECK_LEAD "Tries what is saved, exactly as the site and its clients do; each step waits 5 seconds at most." "Проверяет сохранённые настройки так же, как это делают сайт и его клиенты; каждый шаг длится не более 5 секунд.";
    CHECK_KEY "Signature key" "Код-подпись";
    CHECK_PUBLISH "The site publishes" "Публикация со стороны сайта";
    CHECK_JSON_RPC "The site asks over JSON-RPC" "JSON-RPC запрос сайта";
    CHECK_CLOCK "Clocks agree" "Часы совпадают";
    CHECK_POLL "A browser reads (HTTP)" "Чтение браузером (HTTP)";
    CHECK_POLL_SECURE "A browser reads (HTTPS)" "Чтение браузером (HTTPS)";
    CHECK_WEBSOCKET "A browser reads over WebSocket (HTTP)" "Чтение через WebSocket (HTTP)";
    CHECK_WEBSOCKET_SECURE "A browser reads over WebSocket (HTTPS)" "Чтение через WebSocket (HTTPS)";
    CHECK_REPLAY "What was missed comes later" "Пропущенное доставляется позже";
    CHECK_CLIENT_PUBLISH "A browser publishes (HTTP)" "Публикация браузером (HTTP)";
    CHECK_CLIENT_PUBLISH_SECURE "A browser publishes (HTTPS)" "Публикация браузером (HTTPS)";
    CHECK_WAITING "waiting" "ожидает";
    CHECK_RUNNING "running" "выполняется";
    CHECK_GOOD "works" "работает";
    CHECK_WARNING "works, but" "работает, но";
    CHECK_BAD "fails" "ошибка";
    CHECK_SKIPPED "left out" "пропущено";
    MEND_MAKE_KEY "Generate a key and save." "Создайте ключ и сохраните настройки.";
    MEND_SAME_KEY "The server refuses the signature: site and server need the same key." "Сервер не принимает подпись: на сайте и на сервере должен быть один ключ.";
    MEND_ADDRESS "Correct the address above." "Исправьте адрес выше.";
    MEND_NAME "The name of the host is not known here: correct it, or the host name of the site." "Имя узла здесь неизвестно: исправьте его или имя узла сайта.";
    MEND_LISTEN "Nobody takes connections there: is the server running, is the port open?" "Там никто не принимает соединения: запущен ли сервер, открыт ли порт?";
    MEND_CERTIFICATE "Browsers refuse a certificate that no known authority has signed. Renew it, or sign it by one that your browsers know." "Браузеры не примут сертификат, не подписанный известным центром. Обновите его или подпишите центром, который знают ваши браузеры.";
    MEND_TRUST "The queue server does not let this machine publish. Allow its address:" "Сервер очередей не разрешает этой машине публиковать. Разрешите её адрес:";
    MEND_FORWARD "Something else answers there: the web server must pass the path on." "Там отвечает кто-то другой: веб-сервер должен передавать этот путь дальше.";
    MEND_UPGRADE "The web server must pass on that a WebSocket is wanted." "Веб-сервер должен передавать запрос на переход к WebSocket.";
    MEND_BUFFERING "The answer is held back on its way, or a firewall swallows it." "Ответ задерживается по пути или его поглощает межсетевой экран.";
    MEND_CLOCK "Set the clocks of both machines: tokens and channels expire by them." "Сверьте часы обеих машин: по ним истекают токены и каналы.";
    MEND_HISTORY "The queue server does not keep messages: look at its history engine." "Сервер очередей не хранит сообщения: проверьте его хранилище истории.";
    MEND_BEFORE "A step before has to work first." "Сначала должен заработать предыдущий шаг.";

    // What is wrong with a field, S-52, S-53, S-55.
    BAD_ADDRESS "Enter an address that begins with http:// or https:// and whose path ends with /" "Введите адрес, который начинается с http:// или https:// и путь которого заканчивается на /";
    BAD_SOCKET_ADDRESS "Enter an address that begins with ws:// or wss:// and whose path ends with /" "Введите адрес, который начинается с ws:// или wss:// и путь которого заканчивается на /";
    BAD_NUMBER "Enter a whole number from #MIN# to #MAX#" "Введите целое число от #MIN# до #MAX#";
    BAD_CHOICE "This value is not one of those offered" "Такого значения нет среди предложенных";
    BAD_LENGTH "This is too long: at most 4096 bytes" "Слишком длинно: не более 4096 байт";
    BAD_EMPTY_KEY "Push server 2.0 and later need a key. Generate one, or confirm that there is to be none." "Для Push server 2.0 и новее нужен ключ. Создайте его или подтвердите, что ключа не будет.";
    BAD_PINNED "The configuration file says what it is" "Значение задано в файле конфигурации";
    WARN_WEAK_KEY "Saved with a weak key: it has fewer than 32 random characters." "Сохранено со слабым ключом: в нём меньше 32 случайных символов.";
    WARN_EMPTY_KEY "Saved without a key: anybody who knows a channel id may listen." "Сохранено без ключа: слушать может любой, кто знает номер канала.";
    WARN_OUTDATED "The chosen server software is outdated." "Выбранное программное обеспечение сервера устарело.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proper names and the like, the same everywhere.
    const SAME: [&str; 4] = ["PRODUCT", "SOFTWARE_JSON_RPC", "WAY_WEBSOCKET", "FORM_JSON"];

    #[test]
    fn every_text_has_both_languages() {
        for (name, text) in ALL {
            assert!(!text.en.trim().is_empty() && !text.ru.trim().is_empty(), "{name}");
            let is_cyrillic = |letter: char| {
                ('а'..='я').contains(&letter.to_ascii_lowercase())
                    || ('А'..='Я').contains(&letter)
                    || letter == 'ё'
            };
            assert!(!text.en.chars().any(is_cyrillic), "{name}: English");
            if !SAME.contains(name) {
                assert!(text.ru.chars().any(is_cyrillic), "{name}: Russian");
            }
            for mark in ["#HOST#", "#MIN#", "#MAX#", "#DOMAIN#"] {
                assert_eq!(text.en.contains(mark), text.ru.contains(mark), "{name}: {mark}");
            }
        }
    }

    #[test]
    fn the_language_of_a_browser_is_the_first_known_one() {
        for (header, language) in [
            ("ru-RU,ru;q=0.9,en;q=0.8", Language::Russian),
            ("de, ru;q=0.5", Language::Russian),
            ("en-US", Language::English),
            ("de", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }
}
